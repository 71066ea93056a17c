"""What the OpenAPI document of all routes says, and that they keep to it, whoever asks."""

from collections import Counter
from uuid import UUID

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

import pycheckout
from factories import request_of
from pycheckout import _http_docs
from pycheckout.http import checkout_router, order_router
from races import at_once
from web import app, buyer, get, party, schemathesis, serving

# Generated clients have methods of these names: one that is changed breaks them.
OPERATIONS = {
    "checkout_execute": "post /shop/checkout",
    "checkout_result": "get /shop/checkout/{cart_id}",
    "orders_list": "get /shop/orders",
    "order_get": "get /shop/orders/{order_id}",
    "order_cancel": "post /shop/orders/{order_id}/cancel",
    "order_line_release": "post /shop/orders/{order_id}/lines/{line_id}/release",
    "order_line_fulfil": "post /shop/orders/{order_id}/lines/{line_id}/fulfil",
    "order_line_return": "post /shop/orders/{order_id}/lines/{line_id}/return",
    "order_decide": "post /shop/orders/{order_id}/decide",
}


def document(host=None):
    host = host or FastAPI()
    host.include_router(checkout_router(buyer=buyer, pool=lambda: None), prefix="/shop")
    host.include_router(order_router(party=party, pool=lambda: None), prefix="/shop")
    return host.openapi()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_operations_have_the_names_that_they_always_had():
    found = [(operation["operationId"], what) for what, operation in operations(document())]
    assert len(found) == len(OPERATIONS) and dict(found) == OPERATIONS


def test_a_problem_is_described_once_and_every_error_refers_to_it():
    described = document()
    problem = described["components"]["schemas"]["Problem"]
    assert problem["required"] == ["type", "title", "status", "code", "detail"]
    assert problem["properties"].keys() - set(problem["required"]) == {"errors", "context"}
    for what, operation in operations(described):
        for status, response in operation["responses"].items():
            for media_type, content in response["content"].items():
                if status.startswith("2"):
                    assert media_type == "application/json", (what, status)
                else:
                    assert (media_type, content["schema"]) == (
                        "application/problem+json",
                        {"$ref": "#/components/schemas/Problem"},
                    ), (what, status)


def test_a_host_may_have_models_of_the_same_names():
    class Problem(BaseModel):
        mine: int

    class CheckoutResult(BaseModel):
        mine: int

    host = FastAPI()

    @host.get("/own", response_model=Problem, operation_id="own")
    def own():
        raise NotImplementedError

    @host.get("/other", response_model=CheckoutResult, operation_id="other")
    def other():
        raise NotImplementedError

    described = document(host)
    schemas = described["components"]["schemas"]
    for what, operation in operations(described):
        for response in operation["responses"].values():
            for content in response["content"].values():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                is_own = what in ("get /own", "get /other") and "Validation" not in name
                assert not name or ("mine" in schemas[name]["properties"]) == is_own, (what, name)


# Every route, by whoever may ask


@pytest.fixture
def ordered(db, add_cart):
    """The cart of the document's examples, with orders, one of which has the examples' ids."""
    order, line = UUID(_http_docs.ORDER), UUID(_http_docs.LINE)
    cart = add_cart(groups={0: {"id": order}}, items={(0, 0): {"id": line}})
    result = pycheckout.execute(db, **request_of(cart))
    assert order in {each.order_id for each in result.vendor_orders}
    return cart


def search(dsn, cart, *options):
    """Runs of both roles at once; how often each operation answered with which status."""
    host, answers = app(dsn, orders=True, is_shared=False), Counter()

    @host.middleware("http")
    async def count(request, call_next):
        response = await call_next(request)
        if route := request.scope.get("route"):
            answers[route.operation_id, response.status_code] += 1
        return response

    of_orders = ("--include-path-regex", "/orders", *options)
    with serving(host) as url:
        get(f"{url}/openapi.json")
        tokens = (cart.buyer_store_id, f"vendor-{cart.vendors[0]}")
        runs = at_once(*(lambda token=token: schemathesis(url, token, *of_orders) for token in tokens))
    for done in runs:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "7 selected / 9 total" in done.stdout
    return answers


def test_schemathesis_finds_nothing_in_the_orders_of_a_buyer_and_of_a_vendor(dsn, ordered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    answers = search(dsn, ordered, "--phases", "examples,coverage")

    # What the one cancels the other cannot deliver any more, or the other way round.
    for operation, reached in {
        "orders_list": {200},
        "order_get": {200},
        "order_cancel": {200, 409},
        "order_line_release": {200, 409},
        "order_line_fulfil": {200, 409},
        "order_line_return": {200, 400, 409},
        "order_decide": {200, 400, 409},
    }.items():
        assert reached & {status for name, status in answers if name == operation}, answers
    for operation in ("order_line_release", "order_line_fulfil", "order_line_return", "order_decide"):
        assert answers[operation, 403], answers
    assert not {status for _, status in answers} & {500, 503}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing_in_orders_in_a_long_search(dsn, ordered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    search(dsn, ordered, "--max-examples", "100")
