"""A primary that ends under callers, and a standby that takes over, by streaming replication (see failover.py)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from failover import SCHEMA, Books, Seed, a_pair, a_seed, ask, at, count, drill
from psycopg.rows import dict_row
from quoted import quoted

from pycheckout import ActiveCart, ReadOnlyServer, Unavailable
from races import wait_until

VIEWS = ("checkout_overview", "inventory_levels", "order_money", "outbox_backlog", "outbox_dead_letters")
WAITS = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def seed() -> Iterator[Seed]:
    with a_seed(in_memory=True) as seed:
        yield seed


@pytest.mark.parametrize("silence", [False, True], ids=["killed", "silent"])
def test_callers_go_on_at_a_synchronous_standby_and_nothing_answered_is_lost_or_doubled(seed, silence):
    _books, counted = drill(seed, synchronous=True, silence=silence, orders=160)

    assert counted.answered >= 160
    assert (counted.lost, counted.wrong) == (0, [])


def test_a_standby_answers_what_reads_and_refuses_what_writes(seed):
    with a_pair(seed=seed, synchronous=True) as pair, at(pair.primary.dsn()) as markets, at(pair.dsn()) as copy:
        cart = quoted(markets["ok"])
        done = markets["ok"].execute(**cart.request())
        waiting = quoted(markets["ok"])
        pair.wait_until_replayed()

        there = copy["ok"]
        assert [
            order.order_id for order in there.result(buyer_store_id=cart.buyer_store_id, cart_id=cart.id).vendor_orders
        ] == [order.order_id for order in done.vendor_orders]
        assert isinstance(there.result(buyer_store_id=waiting.buyer_store_id, cart_id=waiting.id), ActiveCart)
        assert len(there.orders.list(buyer_store_id=cart.buyer_store_id).orders) == 2
        assert there.quotes.get(buyer_store_id=cart.buyer_store_id, cart_id=cart.id).id == cart.id
        order, *_ = done.vendor_orders
        assert there.orders.get(order.order_id, buyer_store_id=cart.buyer_store_id).order_id == order.order_id
        assert there.orders.history(order.order_id, buyer_store_id=cart.buyer_store_id) == ()
        assert there.stock.levels([order.items[0].product_id]).levels
        assert there.ads.verify("no.token", buyer_store_id=cart.buyer_store_id).reason == "malformed"
        assert there.outbox.backlog()
        assert there.audit() == ()
        with psycopg.connect(pair.dsn(), options=f"-c search_path={SCHEMA}", row_factory=dict_row) as conn:
            for view in VIEWS:
                conn.execute(f"select * from {view}").fetchall()
            conn.execute("select checkout_version(), (select count(*) from checkout_metrics())")
        for write in (
            lambda: there.execute(**waiting.request()),
            lambda: there.stock.set(uuid4(), 1),
            lambda: quoted(there),
        ):
            with pytest.raises(ReadOnlyServer):
                write()


def test_nobody_is_answered_what_a_synchronous_standby_has_not_but_for_a_wait_that_is_canceled(seed):
    with (
        a_pair(seed=seed, synchronous=True) as pair,
        at(pair.primary.dsn()) as markets,
        ThreadPoolExecutor(1) as threads,
    ):
        checkout = markets["ok"]
        carts = [quoted(checkout) for _ in range(2)]
        with psycopg.connect(pair.primary.dsn(), autocommit=True) as watch:
            pair.cut()
            call = threads.submit(lambda: checkout.execute(**carts[0].request()))
            wait_until(lambda: watch.execute(WAITS).fetchone() == (1,), "the commit waits for no standby", 30)
            assert not call.done()
            # PostgreSQL answers a wait that is canceled with a warning, and has committed.
            assert checkout.execute(**carts[1].request(), timeout=1).outcome == "complete"
            pair.kill_primary()
        pair.promote()

        with pytest.raises(Unavailable) as caught:
            call.result(timeout=30)
        assert caught.value.outcome in ("unknown", "nothing_done")
        with at(pair.dsn()) as promoted:
            again = [ask(lambda cart=cart: promoted["ok"].execute(**cart.request())) for cart in carts]
            assert [answer.replayed for answer in again] == [False, False], "neither was there"
            assert promoted["ok"].audit() == ()


def test_an_asynchronous_standby_lacks_what_it_had_not_received(seed):
    with a_pair(seed=seed, synchronous=False) as pair, at(pair.primary.dsn()) as markets, at(pair.dsn()) as promoted:
        checkout, books = markets["ok"], Books()
        products = [uuid4() for _ in range(4)]
        checkout.stock.set_many(dict.fromkeys(products, 100))
        carts = [quoted(checkout, products) for _ in range(6)]

        def buy(cart, where=checkout):
            books.answers[cart.id] = (cart, where.execute(**cart.request()))

        for cart in carts[:3]:
            buy(cart)
        pair.wait_until_replayed()
        pair.cut()
        for cart in carts[3:5]:
            buy(cart)
        pair.kill_primary()
        pair.promote()

        counted = count(pair.dsn(), books, products, 100)
        assert (counted.answered, counted.lost, counted.wrong) == (5, 2, [])
        for cart in carts[3:5]:  # a caller that calls again has its order after all, under the same ids
            told = books.answers[cart.id][1]
            again = ask(lambda cart=cart: promoted["ok"].execute(**cart.request()))
            assert not again.replayed
            assert {it.order_id for it in again.vendor_orders} == {it.order_id for it in told.vendor_orders}
        assert count(pair.dsn(), books, products, 100).lost == 0


def test_an_old_primary_that_was_not_fenced_goes_on_selling(seed):
    """Both sell the same shelf: whoever promotes has to see to it that the other one is gone."""
    with a_pair(seed=seed, synchronous=False) as pair, at(pair.primary.dsn()) as markets, at(pair.dsn()) as promoted:
        product = uuid4()
        markets["ok"].stock.set(product, 1)
        carts = [quoted(markets["ok"], [product], vendors=1) for _ in range(2)]
        pair.wait_until_replayed()
        pair.promote()

        sold = [where["ok"].execute(**cart.request()) for where, cart in zip((markets, promoted), carts, strict=True)]
        assert [each.outcome for each in sold] == ["complete", "complete"], "one unit, sold twice"
