"""The docs name tests; they are there."""

import re
from pathlib import Path

import mutants
import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
TEXT = DOCS["guarantees"]
NAMED = sorted(set(re.findall(r"`(test_\w+(?:::test_\w+)?)`", "\n".join(DOCS.values()))))


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_the_docs_name_exists(named):
    module, _, function = named.partition("::")
    text = (TESTS / f"{module}.py").read_text(encoding="utf-8")
    assert not function or re.search(rf"^(async )?def {function}\(", text, re.M)


def test_files_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("NNNN_name", "0001_baseline")
    named = set(re.findall(r"\b\w+/[\w./-]+\.\w+|\btest_\w+\.py", text))

    assert len(named) > 10
    assert {name for name in named if not any((folder / name).is_file() for folder in (ROOT, TESTS))} == set()


def test_every_promise_names_a_test():
    promises = TEXT.split("## What is promised")[1].split("## What is not promised")[0]
    table = [line for line in promises.splitlines() if line.startswith("|")][2:]
    assert len(table) > 10
    assert [line for line in table if "`test_" not in line.rsplit("|", 2)[1]] == []


def test_every_rule_of_the_mutants_can_read_what_is_there():
    """They are run by hand: what they cannot read is noticed here."""
    found = {each.name for each in mutants.mutants()}
    assert len(found) > 500
    assert set(mutants.EQUIVALENT) <= found
