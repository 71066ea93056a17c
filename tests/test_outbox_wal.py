"""What logical decoding makes of the outbox: the settings for Debezium in docs/relay.md, on a server of their own."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from events import messages, of_message, validate
from pages import block

import pycheckout
from checks import values
from pycheckout._embedded import EmbeddedServer, bundled_programs, embedded_server

DOC = (Path(__file__).parents[1] / "docs" / "relay.md").read_text(encoding="utf-8")


SETTINGS = dict(line.split("=", 1) for line in block(DOC, "properties", "EventRouter").splitlines())
ROUTER = {
    name.removeprefix("transforms.outbox."): text
    for name, text in SETTINGS.items()
    if name.startswith("transforms.outbox.")
}


@pytest.fixture(scope="module")
def logical_server() -> Iterator[EmbeddedServer]:
    """One whose WAL can be decoded."""
    try:
        bundled_programs()
    except RuntimeError as exc:
        pytest.skip(str(exc))
    with embedded_server(fsync=False, in_memory=True, wal_level="logical") as server:
        yield server


@pytest.fixture
def logical(logical_server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    """A migrated database of it, with the publication and a slot of the docs."""
    name = f"shop_{uuid4().hex}"
    with psycopg.connect(logical_server.dsn(), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    pycheckout.migrate(logical_server.dsn(name))
    with psycopg.connect(logical_server.dsn(name), autocommit=True) as conn:
        conn.execute(block(DOC, "sql", "create publication"))
        conn.execute("select pg_create_logical_replication_slot(%s, %s)", (SETTINGS["slot.name"], "pgoutput"))
        yield conn
        conn.execute("select pg_drop_replication_slot(%s)", (SETTINGS["slot.name"],))


def inserts(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """The rows that pgoutput tells of since the last call (PostgreSQL, "Logical Replication Message Formats")."""
    query = """
        select data from pg_logical_slot_get_binary_changes(
          %s, null, null, 'proto_version', '1', 'publication_names', %s)
    """
    columns: list[str] = []
    found = []
    for message in values(conn, query, SETTINGS["slot.name"], SETTINGS["publication.name"]):
        kind, rest = message[:1], message[1:]
        if kind == b"R":  # Relation: id, schema, name, replica identity, then each column
            schema, name, rest = rest[4:].split(b"\0", 2)
            assert f"{schema.decode()}.{name.decode()}" == SETTINGS["table.include.list"]
            [count] = struct.unpack(">h", rest[1:3])
            rest, columns = rest[3:], []
            for _ in range(count):
                column, rest = rest[1:].split(b"\0", 1)
                columns.append(column.decode())
                rest = rest[8:]
        elif kind == b"I":  # Insert: the relation's id, 'N', then each value
            rest, row = rest[7:], {}
            for column in columns:
                if rest[:1] == b"n":
                    row[column], rest = None, rest[1:]
                else:
                    [length] = struct.unpack(">i", rest[1:5])
                    row[column], rest = rest[5 : 5 + length].decode(), rest[5 + length :]
            found.append(row)
        else:
            assert kind in b"BCOY", f"the publication tells of inserts alone, not of {kind!r}"
    return found


def routed(row: dict[str, Any]) -> dict[str, Any]:
    """What the outbox event router makes of a row, by the settings."""
    column, where, header = ROUTER["table.fields.additional.placement"].split(":")
    assert where == "header"
    return {
        "topic": ROUTER["route.topic.replacement"].replace("${routedByValue}", row[ROUTER["route.by.field"]]),
        "key": row[ROUTER["table.field.event.key"]],
        "value": row[ROUTER["table.field.event.payload"]],
        "headers": {"id": row[ROUTER["table.field.event.id"]], header: row[column]},
    }


def test_the_wal_of_the_outbox_has_each_event_once_and_what_debeziums_router_wants(logical, add_cart, checkout_sql):
    answer = checkout_sql(logical, add_cart(conn=logical))
    order = answer["vendor_orders"][0]["order_id"]
    logical.execute("select vendor_order_cancel(%s, 'out of season')", (order,))

    records = [routed(row) for row in inserts(logical)]

    assert [(record["topic"], record["key"], record["headers"]["type"]) for record in records] == [
        ("pycheckout.checkout_group", answer["checkout_group_id"], "checkout.vendor_orders_created"),
        ("pycheckout.checkout_group", answer["checkout_group_id"], "checkout.converted"),
        ("pycheckout.checkout_group", answer["checkout_group_id"], "vendor_order.canceled"),
    ]
    for record in records:
        payload = validate(json.loads(record["value"]))
        assert (payload["type"], payload["event_id"]) == (record["headers"]["type"], record["headers"]["id"])
        message = messages("rows")[payload["type"]]
        of_message(message).validate(payload)
        of_message(message, "headers").validate(record["headers"])


def test_the_hosts_own_events_can_be_left_out(logical, add_cart, checkout_sql):
    prose = " ".join(DOC.split())
    row_filter = prose[prose.index("for table outbox_events where") :].split("`")[0]
    logical.execute("drop publication pycheckout_outbox")
    logical.execute(f"create publication pycheckout_outbox {row_filter} with (publish = 'insert')")
    logical.execute(
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)"
        " values ('order_created', 'checkout_group', gen_random_uuid(), '{}')"
    )
    checkout_sql(logical, add_cart(conn=logical))

    assert [row["event_type"] for row in inserts(logical)] == ["checkout.vendor_orders_created", "checkout.converted"]


def test_what_a_relay_or_a_purge_does_is_no_event(logical, add_cart, checkout_sql):
    checkout_sql(logical, add_cart(conn=logical))
    assert len(inserts(logical)) == 2

    logical.execute("select outbox_fail(claim_id, id, 'no route') from outbox_claim(1)")
    logical.execute("select outbox_ack(null, array_agg(id)) from outbox_events where published_at is null")
    logical.execute("select outbox_replay(id) from outbox_events limit 1")
    assert values(logical, "select outbox_purge('0') > 0") == [True]

    assert inserts(logical) == []


def test_a_checkout_that_is_rolled_back_leaves_no_trace(logical, add_cart, checkout_sql):
    cart = add_cart(conn=logical)
    with logical.transaction(force_rollback=True):
        checkout_sql(logical, cart)

    assert inserts(logical) == []
