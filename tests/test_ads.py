"""pycheckout.ads.mint, docs/ads.md, and what ad_token_check says of their tokens."""

import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID, uuid4

import jwt
import psycopg
import pytest
from pages import block

from checks import values
from factories import request_of
from pycheckout import execute
from pycheckout.ads import mint
from races import wait_until

PAGE = (Path(__file__).parents[1] / "docs" / "ads.md").read_text(encoding="utf-8")
KEY = bytes(range(32))
CONVERTED = "checkout.converted"
BUYER = UUID("b0000000-0000-4000-8000-000000000101")


@pytest.fixture(autouse=True)
def key(db):
    db.execute("select ad_signing_key_put('k1', %s, true)", (KEY,))


def token(**changes):
    now = datetime.now(UTC)
    return mint(
        **{
            "secret": KEY,
            "kid": "k1",
            "ad_id": uuid4(),
            "creative_id": uuid4(),
            "placement": "hero",
            "target_type": "product",
            "target_id": uuid4(),
            "buyer_store_id": BUYER,
            "event_type": "click",
            "occurred_at": now,
            "expires_at": now + timedelta(days=7),
        }
        | changes
    )


def check(db, token, buyer=BUYER):
    [answer] = values(db, "select ad_token_check(%s, %s)", token, buyer)
    return answer


def test_a_minted_token_counts_with_all_its_claims(db):
    minted = token(more={"bid_cents": 42, "token_id": "of the caller"})

    assert check(db, minted) == {"reason": None, "claims": jwt.decode(minted, KEY, algorithms=["HS256"])}
    assert check(db, minted)["claims"]["bid_cents"] == 42
    assert check(db, token(kid=None))["reason"] is None


def test_a_token_that_does_not_count_has_its_reason_and_no_claims(db):
    now = datetime.now(UTC)
    answers = {
        "malformed": [check(db, None), check(db, ""), check(db, "a.b.c")],
        "too_long": [check(db, token(more={"x": "x" * 9000}))],
        "unknown_key": [check(db, token(kid="k2"))],
        "bad_signature": [check(db, token(secret=KEY[::-1]))],
        "invalid_claims": [check(db, token(placement="footer")), check(db, token(expires_at=now - timedelta(days=1)))],
        "wrong_buyer": [check(db, token(), uuid4()), check(db, token(), None)],
        "expired": [check(db, token(occurred_at=now - timedelta(days=2), expires_at=now - timedelta(seconds=1)))],
        "from_future": [check(db, token(occurred_at=now + timedelta(hours=1)))],
    }

    assert answers == {reason: [{"reason": reason, "claims": None}] * len(found) for reason, found in answers.items()}
    assert {*re.findall(r"^\| `(\w+)` \| (?!of a cart)", PAGE.partition("| reason |")[2], re.MULTILINE)} == {
        *answers,
        "algorithm",
    }


def test_it_says_what_counts_now_however_long_the_transaction_has_run(db):
    with db.transaction():
        values(db, "select now()")
        short_lived = token(expires_at=datetime.now(UTC) + timedelta(seconds=1))
        wait_until(lambda: check(db, short_lived)["reason"] == "expired")


def test_times_keep_their_instant_and_need_a_zone():
    at = datetime(2026, 8, 1, 13, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))

    claims = jwt.decode(token(occurred_at=at, expires_at=at), options={"verify_signature": False})

    assert (claims["occurred_at"], claims["exp"]) == ("2026-08-01T11:00:00.250000+00:00", 1785582000)
    for name in ("occurred_at", "expires_at"):
        with pytest.raises(ValueError, match="has no time zone"):
            token(**{name: at.replace(tzinfo=None)})


def test_a_role_that_checks_out_may_look_at_tokens(db, login, new_role):
    service, other = new_role(), new_role()
    db.execute("select checkout_grant(%s)", (service,))

    assert check(login(service), token())["reason"] is None
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        check(login(other), token())


@pytest.mark.parametrize("way", ["pycheckout.ads", "import jwt"])
def test_the_page_mints_what_a_checkout_attributes(db, add_cart, way):
    code = block(PAGE, "python", way)
    cart = add_cart(vendors=1, lines=1)
    names = {
        "secret": secrets.token_bytes(32),
        "ad_id": uuid4(),
        "creative_id": uuid4(),
        "product_id": cart.items[0].product_id,
        "buyer_store_id": cart.buyer_store_id,
    }
    db.execute("select ad_signing_key_put('2026-08', %s)", (names["secret"],))
    exec(code, names)
    db.execute("update cart_records set ad_tokens = %s where id = %s", ([names["token"]], cart.id))

    result = execute(db, **request_of(cart))

    [line] = result.vendor_orders[0].items
    assert line.attributed_token.ad_id == names["ad_id"]
    assert jwt.decode(names["token"], names["secret"], algorithms=["HS256"]).keys() == {
        *re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ((?:`\w+`,? ?)+) \| UUID.*", PAGE, re.MULTILINE))),
        "placement",
        "target_type",
        "event_type",
        "occurred_at",
        "exp",
        "bid_cents",
    }


def test_what_was_dropped_is_told_by_the_event_and_by_no_result(db, add_cart):
    good, other = token(), token(buyer_store_id=uuid4())
    cart = add_cart(ad_tokens=[good, other, "x"], buyer_store_id=BUYER)

    first = execute(db, **request_of(cart))
    again = execute(db, **request_of(cart))

    [event] = values(
        db, "select payload -> 'data' -> 'attribution' from outbox_events where event_type = %s", CONVERTED
    )
    assert event == {
        "token_ids": [check(db, good)["claims"]["token_id"]],
        "dropped": {"malformed": 1, "wrong_buyer": 1},
    }
    assert replace(again, replayed=False) == first
