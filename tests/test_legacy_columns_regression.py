"""CLEANUP: the artifacts of the earlier checkout are gone, end to end."""

import re
from pathlib import Path

import pytest

from checks import values

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "pycheckout").rglob("*.py"), *(ROOT / "db" / "functions").rglob("*.sql")]
# However a language would spell them: snake_case, CamelCase, with or without an s.
GONE = {
    "CreateCheckoutGroup": r"create_?checkout_?groups?",
    "AttributedAdClickID": r"(attributed_?)?ad_?click(_?id)?s?",
    "checkout_groups": r"checkout_?groups(?!_archive)",
}
# It blanks the click of a person in checkout_groups_archive, which keeps the columns that the table had.
ARCHIVE_IS_ERASED_BY = ROOT / "db" / "functions" / "admin" / "checkout_erase.sql"


@pytest.mark.parametrize("name", GONE)
def test_neither_the_package_nor_a_function_names_it(name):
    """CLEANUP: no reference to CreateCheckoutGroup, AttributedAdClickID or the dropped table checkout_groups."""
    assert len(SOURCES) > 40
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted(SOURCES)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if not (name == "AttributedAdClickID" and file == ARCHIVE_IS_ERASED_BY)
        and re.search(rf"(?<![a-z]){GONE[name]}(?![a-z])", line, flags=re.IGNORECASE)
    ]
    assert found == []


def test_no_table_or_column_of_the_schema_is_called_so(db):
    """CLEANUP: the anchor is a plain column; attribution comes from ad_tokens alone."""
    names = values(
        db,
        """
        select table_name || '.' || column_name from information_schema.columns
         where table_schema = current_schema()
           and (table_name = 'checkout_groups' or strpos(column_name, 'ad_click') > 0)
        """,
    )
    assert names == []


def test_neither_a_result_nor_an_event_mentions_an_ad_click(db, add_cart, checkout_sql):
    """CLEANUP: AttributedAdClickID is out of answers and event payloads."""
    result = checkout_sql(db, add_cart())
    assert "ad_click" not in str(result)
    assert not [payload for payload in values(db, "select payload::text from outbox_events") if "ad_click" in payload]
