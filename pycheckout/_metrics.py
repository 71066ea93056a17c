"""What `checkout_metrics()` tells, and what a relay counts, in Prometheus' text format. Needs the extra `metrics`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
    from ._commands._places import Place
    from .relay import Relay

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_AT_ONCE = 16  # databases
_AWAY = "the database or the broker is away"
_PATIENCE = 6.0  # seconds that a scrape waits for databases
_TIMEOUT = "5s"  # of the database, less than a scrape's own (Prometheus: 10 s)
_QUERY = "select name, labels, value, type, help from {}checkout_metrics()"


def query(schema: str | None) -> sql.Composed:
    """The one statement; `schema`: where pycheckout is, by default where the search_path finds it."""
    return sql.SQL(_QUERY).format(sql.SQL("{}.").format(sql.Identifier(schema)) if schema is not None else sql.SQL(""))


def beside_market(row: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    """A row of `checkout_metrics()` with its market as one more label, if it is of one."""
    return {**row, "labels": _labels(place) | row["labels"]}


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


def _of_relays(relays: Sequence[tuple[dict[str, str], Relay]]) -> Iterator[Metric]:
    """What relays count, each beside the labels of its market."""
    for name, said in (
        ("published", "Events that the broker took and that were marked, since this relay began."),
        ("failed", "Attempts that a broker refused, since this relay began."),
        ("interrupted", "Times that the broker or the database was lost or could not be reached."),
    ):
        counter = CounterMetricFamily(f"pycheckout_relay_{name}", said)
        for labels, relay in relays:
            counter.add_sample(f"pycheckout_relay_{name}_total", labels, getattr(relay.counts, name))
        yield counter
    batches = SummaryMetricFamily(
        "pycheckout_relay_batch_seconds",
        "Seconds that a batch took, from the claim to the last mark; batches are counted beside them.",
    )
    for labels, relay in relays:
        batches.add_sample("pycheckout_relay_batch_seconds_count", labels, relay.counts.batches)
        batches.add_sample("pycheckout_relay_batch_seconds_sum", labels, relay.counts.batch_seconds)
    yield batches
    for name, field, told in (
        (
            "lag_seconds",
            "lag_seconds",
            "Seconds from the writing of what was published last to its confirmation, by two clocks; 0: none is due.",
        ),
        (
            "ready",
            "ready",
            "1: the last look at the outbox went well; 0: the database or the broker is away.",
        ),
        (
            "poll_timestamp_seconds",
            "polled_at",
            "Unix time of the last look at the outbox that went well; 0: none.",
        ),
    ):
        gauge = GaugeMetricFamily(f"pycheckout_relay_{name}", told)
        for labels, relay in relays:
            gauge.add_sample(f"pycheckout_relay_{name}", labels, float(getattr(relay.counts, field)))
        yield gauge


class Listener:
    """Answers `/metrics`, `/livez` and `/readyz` of the relays of a process, from a thread of its own.

    `relays` says where each is: it is read anew for each request. `address` is host and port; port 0 takes a free one,
    which `port` names. The databases are asked anew at each scrape, side by side, over connections of their own, and no
    two scrapes at once. Raises OSError where the address cannot be had.
    """

    def __init__(self, relays: Mapping[Place, Relay], address: tuple[str, int]) -> None:
        self._relays = relays
        self._asking = threading.Lock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, "pycheckout-metrics")
        self._asked: dict[Place, Future[Sequence[Mapping[str, Any]] | None]] = {}
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
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics()
        relays = dict(self._relays)
        if path == "/livez":
            alive = all(relay.alive for relay in relays.values())
            return (200, plain, b"alive\n") if alive else (503, plain, b"the event loop hangs\n")
        if path == "/readyz":
            away = [place.headed(_AWAY) for place, relay in relays.items() if not relay.counts.ready]
            return (503, plain, "\n".join([*away, ""]).encode()) if away else (200, plain, b"ready\n")
        return 404, plain, b"/metrics, /livez and /readyz are here\n"

    def _metrics(self) -> bytes:
        relays = dict(self._relays)
        with self._asking:
            for place in relays:
                if place not in self._asked or self._asked[place].done():
                    self._asked[place] = self._threads.submit(_asked, place)
            # one that says nothing holds no other up, and is not asked again meanwhile
            done = wait([self._asked[place] for place in relays], _PATIENCE).done
            asked = {place: self._asked[place] for place in relays}
        found = [(place, future.result() if future in done else None) for place, future in asked.items()]
        said = "1: the database answered this scrape; 0: it did not, and what it tells is missing."
        up = GaugeMetricFamily("pycheckout_database_up", said)
        for place, rows in found:
            up.add_sample("pycheckout_database_up", _labels(place), float(rows is not None))
        told = [beside_market(row, place) for place, rows in found for row in rows or ()]
        return _written([*_families(told), *_of_relays([(_labels(place), it) for place, it in relays.items()]), up])


def _labels(place: Place) -> dict[str, str]:
    return {} if place.market is None else {"market": place.market}


def _asked(place: Place) -> Sequence[Mapping[str, Any]] | None:
    """What the database tells; nothing if it does not answer."""
    params = _conninfo.KEEPALIVE | _conninfo.own(place.database)
    params |= {"connect_timeout": "5", "application_name": "pycheckout metrics"}
    try:
        with psycopg.connect(**params, prepare_threshold=None, row_factory=dict_row) as conn:
            conn.execute("select set_config('statement_timeout', %s, true)", (_TIMEOUT,))
            return conn.execute(query(place.schema)).fetchall()
    except psycopg.Error:
        return None


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
