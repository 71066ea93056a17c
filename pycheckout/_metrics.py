"""What `checkout_metrics()` tells, and what a relay counts, in Prometheus' text format. Needs the extra `metrics`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any

import psycopg
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from psycopg import sql
from psycopg.rows import dict_row

from . import _conninfo

if TYPE_CHECKING:
    from .relay import Relay

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TIMEOUT = "5s"  # of the database, less than a scrape's own (Prometheus: 10 s)
_QUERY = "select name, labels, value, type, help from {}checkout_metrics()"


def query(schema: str | None) -> sql.Composed:
    """The one statement; `schema`: where pycheckout is, by default where the search_path finds it."""
    return sql.SQL(_QUERY).format(sql.SQL("{}.").format(sql.Identifier(schema)) if schema is not None else sql.SQL(""))


def text(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows of `checkout_metrics()` as Prometheus reads them."""
    return _written([*_families(rows)])


def _families(rows: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    found: dict[str, Metric] = {}
    for row in rows:
        metric = found.setdefault(row["name"], Metric(row["name"], row["help"], row["type"]))
        metric.add_sample(row["name"], row["labels"], row["value"])
    yield from found.values()


def _written(families: Iterable[Metric]) -> bytes:
    class Known(Collector):
        def collect(self) -> Iterable[Metric]:
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Known())
    return generate_latest(registry)


def _of_a_relay(relay: Relay) -> Iterator[Metric]:
    counts = relay.counts
    for name, value, said in (
        ("published", counts.published, "Events that the broker took and that were marked, since this relay began."),
        ("failed", counts.failed, "Attempts that a broker refused, since this relay began."),
        ("interrupted", counts.interrupted, "Times that the broker or the database was lost or could not be reached."),
    ):
        yield CounterMetricFamily(f"pycheckout_relay_{name}", said, value=value)
    yield SummaryMetricFamily(
        "pycheckout_relay_batch_seconds",
        "Seconds that a batch took, from the claim to the last mark; batches are counted beside them.",
        count_value=counts.batches,
        sum_value=counts.batch_seconds,
    )
    gauges: tuple[tuple[str, float, str], ...] = (
        (
            "lag_seconds",
            counts.lag_seconds,
            "Seconds from the writing of what was published last to its confirmation, by two clocks; 0: none is due.",
        ),
        (
            "ready",
            float(counts.ready),
            "1: the last look at the outbox went well; 0: the database or the broker is away.",
        ),
        (
            "poll_timestamp_seconds",
            counts.polled_at,
            "Unix time of the last look at the outbox that went well; 0: none.",
        ),
    )
    for name, number, told in gauges:
        yield GaugeMetricFamily(f"pycheckout_relay_{name}", told, value=number)


class Listener:
    """Answers `/metrics`, `/livez` and `/readyz` of a relay, from a thread of its own.

    `address` is host and port; port 0 takes a free one, which `port` names. The database is asked anew at each scrape,
    one at a time, over a connection of its own. Raises OSError where the address cannot be had.
    """

    def __init__(self, relay: Relay, database: str, schema: str | None, address: tuple[str, int]) -> None:
        self._relay = relay
        self._database = (
            _conninfo.KEEPALIVE
            | {"connect_timeout": "5"}
            | _conninfo.parameters(database)
            | {"application_name": "pycheckout metrics"}
        )
        self._query = query(schema)
        self._asking = threading.Lock()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version = "pycheckout"
            sys_version = ""

            def do_GET(self) -> None:
                status, kind, body = listener._answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Nothing: a scrape is no event."""

        self._server = _server(address, Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="pycheckout-listen", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics()
        if path == "/livez":
            alive = self._relay.alive
            return (200, plain, b"alive\n") if alive else (503, plain, b"the event loop hangs\n")
        if path == "/readyz":
            ready = self._relay.counts.ready
            return (200, plain, b"ready\n") if ready else (503, plain, b"the database or the broker is away\n")
        return 404, plain, b"/metrics, /livez and /readyz are here\n"

    def _metrics(self) -> bytes:
        rows: Sequence[Mapping[str, Any]] = ()
        up = 0
        with self._asking, suppress(psycopg.Error):
            with psycopg.connect(**self._database, prepare_threshold=None, row_factory=dict_row) as conn:
                conn.execute("select set_config('statement_timeout', %s, true)", (_TIMEOUT,))
                rows = conn.execute(self._query).fetchall()
            up = 1

        said = "1: the database answered this scrape; 0: it did not, and what it tells is missing."
        own = GaugeMetricFamily("pycheckout_database_up", said, value=up)
        return _written([*_families(rows), *_of_a_relay(self._relay), own])


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # without looking the host's name up
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away is no event."""


class _Quiet6(_Quiet):
    address_family = socket.AF_INET6


def _server(address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    return (_Quiet6 if ":" in address[0] else _Quiet)(address, handler)


def address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[::1]:PORT` or `PORT`, which is that of 127.0.0.1. Raises ValueError."""
    host, _, port = text.rpartition(":")
    number = int(port)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", number
