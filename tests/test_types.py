"""What a service's type checker says of its calls: mypy and pyright find a mistake in the lines that have one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SERVICE = """\
# pyright: strict
from uuid import uuid4
from pycheckout import AsyncCheckout, Checkout, CheckoutResult, Decision, ShippingLine

ADDRESS = {"line1": "12 Main Street"}


def checks_out(shop: Checkout) -> CheckoutResult:
    buyer, cart = uuid4(), uuid4()
    shop.execute(
        buyer_store_id=buyer, cart_id=cart, idempotency_key="k", shipping_address=ADDRESS, payment_method="ach",
        reservation_policy="sometimes",  # wrong
    )
    shop.execute(
        buyer_store_id=buyer, cart_id=cart, idempotency_key="k", shipping_address=ADDRESS, payment_method="ach",
        ad_token_policy="keep",  # wrong
    )
    return shop.execute(
        buyer_store_id=buyer, cart_id=cart, idempotency_key="k", shipping_address=ADDRESS, payment_method="ach",
        reservation_policy="all", ad_token_policy="error", timeout=3,
        shipping_line=ShippingLine(code="ground", title="Ground", price_cents=499),
    )


def decides(shop: Checkout) -> None:
    order, line = uuid4(), uuid4()
    shop.orders.decide(order, [{"line_item_id": line, "accept_qty": 2, "reason": "One is bruised."}], change_key="k")
    shop.orders.decide(order, [{"line_item_id": str(line), "accept_qty": 2}], change_key="k")
    shop.orders.decide(order, [{"line_id": line, "accept_qty": 2}], change_key="k")  # wrong
    shop.orders.decide(order, [{"line_item_id": line}], change_key="k")  # wrong
    shop.orders.decide(order, [{"line_item_id": line, "accept_qty": "2"}], change_key="k")  # wrong
    decisions: list[Decision] = []
    decisions.append({"line_item_id": line, "accept_qty": 0, "reason": None})
    shop.orders.decide(order, decisions, change_key="k")


def reads(shop: Checkout) -> None:
    answer = shop.result(buyer_store_id=uuid4(), cart_id=uuid4())
    print(answer.vendor_orders)  # wrong
    if answer.status == "shipped_maybe":  # wrong
        print("never")
    if answer.status == "converted":
        print(answer.vendor_orders[0].total_cents)
        print(answer.valid_until)  # wrong
    else:
        print(answer.valid_until)
        print(answer.vendor_orders)  # wrong
    shop.orders.list(buyer_store_id=uuid4(), status="shipped_maybe")  # wrong
    shop.orders.list(buyer_store_id=uuid4(), statuses=[1])  # wrong
    shop.orders.list(buyer_store_id=uuid4(), order_number="17")  # wrong
    shop.orders.list(buyer_store_id=uuid4(), statuses=["accepted"], order_number=17, purchase_order="PO-4711")
    shop.orders.cancel(uuid4())  # wrong
    shop.result(uuid4(), uuid4())  # wrong
    shop.quotes.get(uuid4(), uuid4())  # wrong
    shop.ads.verify("a.b.c", uuid4())  # wrong
    shop.stock.adjust(uuid4(), "3")  # wrong


async def reads_later(shop: AsyncCheckout) -> None:
    print(shop.result(buyer_store_id=uuid4(), cart_id=uuid4()).status)  # wrong
    answer = await shop.result(buyer_store_id=uuid4(), cart_id=uuid4())
    print(answer.vendor_orders)  # wrong
    if isinstance(answer, CheckoutResult):
        print(answer.vendor_orders[0].total_cents)
"""


def mypy(file, folder):
    options = ["--strict", "--no-warn-unreachable", "--output", "json", "--cache-dir", str(folder / "cache"), str(file)]
    done = subprocess.run([sys.executable, "-m", "mypy", *options], cwd=ROOT, capture_output=True, text=True)
    return [each["line"] for each in map(json.loads, done.stdout.splitlines()) if each["severity"] == "error"]


def pyright(file, folder):
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return [each["range"]["start"]["line"] + 1 for each in json.loads(done.stdout)["generalDiagnostics"]]


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_checker_finds_each_mistake_and_nothing_else(checker, tmp_path):
    pytest.importorskip(checker.__name__)
    file = tmp_path / "service.py"
    file.write_text(SERVICE, encoding="utf-8")
    lines = dict(enumerate(SERVICE.splitlines(), 1))

    found = checker(file, tmp_path)

    assert {(line, lines[line]) for line in found} == {(n, line) for n, line in lines.items() if "# wrong" in line}
