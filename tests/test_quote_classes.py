"""A quote in Python: its sums, and that classes, schema, page and cart_put name the same fields."""

import json
import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import jsonschema
import pytest
from pages import block

import pycheckout
from factories import ADDRESS
from pycheckout import (
    CheckoutWarning,
    InvalidRequest,
    Line,
    PaymentTerms,
    Promo,
    Quote,
    TaxLine,
    VendorGroup,
    VendorShippingLine,
    VolumeDiscount,
)

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "quotes.md").read_text(encoding="utf-8")
SCHEMA = json.loads((DOCS / "quote.schema.json").read_text(encoding="utf-8"))
CHECK = (DOCS.parent / "db/functions/cart/steps/cart_check_values.sql").read_text(encoding="utf-8")


def full():
    """Every field given."""
    line = Line(
        id=uuid4(),
        product_id=uuid4(),
        title="Basil",
        category="herbs",
        unit="bunch",
        quantity=5,
        moq=1,
        max_qty=9,
        unit_price_cents=400,
        line_discounts_cents=250,
        tax_cents=150,
        tax_lines=[
            TaxLine(code="state", title="State", rate="0.0625", amount_cents=109),
            TaxLine(code="city", title="City", rate="0.0235", amount_cents=41),
        ],
        applied_volume_discount=VolumeDiscount(label="5 for less", amount_cents=250),
        warnings=[CheckoutWarning(type="last", message="The last ones.")],
        status="ok",
    )
    group = VendorGroup(
        id=uuid4(),
        vendor_store_id=uuid4(),
        status="ok",
        promo=Promo(code="SPRING", amount_cents=100),
        shipping_cents=80,
        shipping_tax_cents=7,
        shipping_line=VendorShippingLine(code="van", title="By van"),
        minimum_cents=2000,
        payment_terms=PaymentTerms(code="net30", net_days=30),
        warnings=[CheckoutWarning(type="slow", message="Delivers on Mondays.")],
        items=[line, Line(product_id=uuid4(), title="Mint", quantity=1, unit_price_cents=500)],
    )
    return Quote(
        id=uuid4(),
        buyer_store_id=uuid4(),
        currency="USD",
        valid_until=datetime(2099, 1, 1, tzinfo=UTC),
        shipping_address=ADDRESS,
        ad_tokens=["a.b.c"],
        tax_included=False,
        vendor_groups=[group],
    )


def names(kind):
    """What a class writes."""
    made = {name for name, it in vars(kind).items() if isinstance(it, property) and name[0] != "_"}
    return {field.name for field in fields(kind) if field.name[0] != "_"} | made


def parts(schema):
    group = schema["properties"]["vendor_groups"]["items"]
    return {"cart": schema, "group": group, "item": group["properties"]["items"]["items"]}


def test_sums_add_up_to_what_the_database_takes(db):
    quote = full()
    [group] = quote.vendor_groups

    assert (group.subtotal_cents, group.line_discounts_cents, group.promo_discount_cents) == (2500, 250, 100)
    assert (quote.subtotal_cents, quote.discounts_cents, quote.total_cents) == (2500, 350, 2387)
    active = pycheckout.put_cart(db, quote)
    assert active.totals.quoted == pycheckout.Amounts(
        subtotal_cents=2500, discounts_cents=350, tax_cents=157, transport_fee_cents=80, total_cents=2387
    )
    [found] = active.vendor_groups
    assert (found.shipping_line, found.payment_terms) == (group.shipping_line, group.payment_terms)
    assert {item.id for item in found.items} >= {group.items[0].id}


def test_tax_that_prices_include_is_in_no_sum_and_a_group_goes_into_the_next_quote_as_it_was(db):
    included = replace(full(), tax_included=True)
    [group] = included.vendor_groups
    assert (group.total_cents, included.total_cents) == (2230, 2230)
    assert pycheckout.put_cart(db, included).totals.quoted.total_cents == 2230

    added = replace(full(), id=included.id, buyer_store_id=included.buyer_store_id, vendor_groups=[group])
    assert (added.total_cents, added.vendor_groups[0].total_cents) == (2387, 2387)
    assert (group.total_cents, included.total_cents) == (2230, 2230)
    assert pycheckout.put_cart(db, added).totals.quoted.total_cents == 2387


def test_what_is_not_ok_is_in_no_sum(db):
    quote = full()
    [group] = quote.vendor_groups
    gone = replace(group.items[0], status="not_available")
    invalid = VendorGroup(vendor_store_id=uuid4(), status="invalid", items=[replace(gone, id=None, status="ok")])
    quote = replace(quote, vendor_groups=[replace(group, items=[gone, group.items[1]]), invalid])

    assert (quote.subtotal_cents, quote.discounts_cents, quote.total_cents) == (500, 100, 487)
    assert pycheckout.put_cart(db, quote).totals.quoted.total_cents == 487


@pytest.mark.parametrize(
    ("of", "given", "field", "problem"),
    [
        (Quote, {"valid_until": datetime(2099, 1, 1)}, "", "must be a datetime with a time zone"),
        (Quote, {"tax_included": "no"}, "", "must be true or false"),
        (Quote, {"vendor_groups": {}}, "", "must be a list, not dict"),
        (Quote, {"vendor_groups": [Line(product_id=uuid4(), quantity=1, unit_price_cents=1)]}, "[0]",
         "must be a VendorGroup, not Line"),
        (VendorGroup, {"shipping_cents": "80"}, "", "must be a whole number"),
        (VendorGroup, {"promo": {"amount_cents": 100}}, "", "must be a Promo, not dict"),
        (VendorGroup, {"promo": Promo(amount_cents=1.5)}, ".amount_cents", "must be a whole number"),
        (VendorGroup, {"items": [{}]}, "[0]", "must be a Line, not dict"),
        (Line, {"quantity": "2"}, "", "must be a whole number"),
        (Line, {"quantity": None}, "", "is required"),
        (Line, {"unit_price_cents": 1.5}, "", "must be a whole number"),
        (Line, {"line_discounts_cents": True}, "", "must be a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_added_up_is_told_with_its_path(of, given, field, problem):
    """Not as a sum that is wrong, and not as an error of Python's."""
    whole = full()
    [group] = whole.vendor_groups
    [name] = given
    with pytest.raises(InvalidRequest) as caught:
        if of is Quote:
            replace(whole, **given)
        elif of is VendorGroup:
            replace(whole, vendor_groups=[replace(group, **given)])
        else:
            replace(whole, vendor_groups=[replace(group, items=[replace(group.items[0], **given)])])

    path = {Quote: "cart.", VendorGroup: "cart.vendor_groups[0].", Line: "cart.vendor_groups[0].items[0]."}[of]
    assert caught.value.detail == {"field": f"{path}{name}{field}", "problem": problem}


def test_classes_schema_page_and_function_name_the_same_fields():
    known = re.findall(r"^\s+\('(cart|group|item)', '\w+', '(\w+)', '\w+', (true|false)\)", CHECK, re.MULTILINE)
    for part, kind in {"cart": Quote, "group": VendorGroup, "item": Line}.items():
        taken = {name for of, name, _ in known if of == part}
        required = {name for of, name, needed in known if of == part and needed == "true"}
        nested = {"cart": {"vendor_groups"}, "group": {"items"}, "item": set()}[part]

        assert names(kind) == taken | nested
        assert parts(SCHEMA)[part]["properties"].keys() == taken | nested
        assert set(parts(SCHEMA)[part]["required"]) == required | (nested - {"items"})
        assert {name for name in taken if f"`{name}`" not in PAGE and not name.endswith("_cents")} == set()


def test_what_the_classes_write_is_valid_by_the_schema(db):
    written = json.loads(json.dumps(full().to_json(), default=str))
    written["valid_until"] = full().valid_until.isoformat()

    jsonschema.validate(written, SCHEMA, format_checker=jsonschema.FormatChecker())
    pycheckout.put_cart(db, written)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"totals_cents": 1}, SCHEMA)
    with pytest.raises(InvalidRequest):
        pycheckout.put_cart(db, written | {"totals_cents": 1})


def test_the_quote_of_the_page_is_taken(db):
    code = block(PAGE, "python")
    [sql] = re.findall(r"^select cart_put\('(.*?)'\);", PAGE, re.DOTALL | re.MULTILINE)

    exec(code, {"checkout": pycheckout.Checkout(db), "datetime": datetime, "UTC": UTC, "UUID": UUID})

    asked = json.loads(sql)
    found = pycheckout.result(db, buyer_store_id=asked["buyer_store_id"], cart_id=asked["id"])
    assert found.totals.quoted.total_cents == asked["vendor_groups"][0]["total_cents"] == 2150
