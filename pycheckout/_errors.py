"""What a checkout can raise, and the one table from SQLSTATE to class.

The database alone decides what is wrong; here its codes only get names. Messages
are for people, and their wording is no interface: programs look at the class, or
at `code`, and at `detail`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import psycopg


class CheckoutError(Exception):
    """Something went wrong in a checkout; each subclass says what, and what to do.

    `message` is for a person, `detail` for programs (the error's JSON DETAIL, {}
    when there is none), `hint` the remedy in words. `sqlstate` is PostgreSQL's code;
    it is None where the call never reached the server, or lost it. `__cause__` is
    the psycopg error. Raised as itself, it carries a code of a newer release.
    """

    code: ClassVar[str] = "checkout_error"
    """A stable name, the same in every language and in HTTP answers."""
    http_status: ClassVar[int] = 500
    """What `pycheckout.http` answers with."""
    retryable: bool = False
    """Whether the same call, with the same key, may simply be made again."""

    def __init__(
        self,
        message: str = "",
        *,
        sqlstate: str | None = None,
        detail: Mapping[str, Any] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.detail: dict[str, Any] = dict(detail or {})
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHINT:  {self.hint}" if self.hint else self.message


class CartNotFound(CheckoutError):
    """This buyer has no such cart. Look at the ids: another buyer's cart is not found either."""

    code = "cart_not_found"
    http_status = 404


class CartNotActive(CheckoutError):
    """The cart is neither active nor converted, so it cannot be ordered. Start a new cart."""

    code = "cart_not_active"
    http_status = 409


class CartExpired(CheckoutError):
    """The quote ran out before the checkout. Quote the cart again and show the buyer the new prices."""

    code = "cart_expired"
    http_status = 409


class NoOrderableItems(CheckoutError):
    """Nothing in the cart can be ordered. Quote it again, or replace the unavailable items."""

    code = "no_orderable_items"
    http_status = 409


class InvalidRequest(CheckoutError):
    """An argument cannot be used: address, payment method, shipping line, key, policy or id.

    Correct it; `detail` names it.
    """

    code = "invalid_request"
    http_status = 422


class IdempotencyKeyReused(CheckoutError):
    """The key already stands for another request: of this buyer, order or product, or another event of this provider.

    Take a new key for a new request.
    """

    code = "idempotency_key_reused"
    http_status = 422


class CartInconsistent(CheckoutError):
    """The quote contradicts itself, and ordering it would book wrong amounts.

    Quote it again; if the error comes back, the quoting code is at fault, and `detail`
    holds both figures.
    """

    code = "cart_inconsistent"
    http_status = 409


class AdTokenInvalid(CheckoutError):
    """An ad token is bad and the policy is `error`. Drop the token from the cart, or use the policy `drop`."""

    code = "ad_token_invalid"
    http_status = 422


class SnapshotImmutable(CheckoutError):
    """A converted cart was about to change. It never does; start a new cart."""

    code = "snapshot_immutable"
    http_status = 409


class InsufficientInventory(CheckoutError):
    """A line is short of stock and the policy is `all`, so nothing was ordered; or `stock.adjust` takes too much.

    Show the buyer the short lines, which `detail` names.
    """

    code = "insufficient_inventory"
    http_status = 409


class OrderNotFound(CheckoutError):
    """No checkout made such an order or order line. Look at the id."""

    code = "order_not_found"
    http_status = 404


class OrderStateConflict(CheckoutError):
    """An order or a line is past what was asked of it: a delivered order cannot be canceled.

    Read the order again; `detail` names the state that was found and those that are allowed.
    """

    code = "order_state_conflict"
    http_status = 409


class Busy(CheckoutError):
    """Others held the rows for too long, or won a deadlock or a serialization conflict.

    Nothing was done: make the same call again, in a new transaction.
    """

    code = "busy"
    http_status = 503
    retryable = True


class MarketMoving(Busy):
    """The market is being moved to another server, which takes a moment.

    Nothing was done: make the same call again, with the same key. `Markets` finds the server that it went to.
    """

    code = "market_moving"


class MarketMoved(CheckoutError):
    """The market is on another server now: `detail` has its name, `server`.

    Nothing was done: make the same call there, with the same key. `Markets` does so itself, unless its map lacks the
    server: then put it there.
    """

    code = "market_moved"
    http_status = 503


class Unavailable(CheckoutError):
    """The database did not answer: time-out, shutdown, failover, lost connection, no connection, disk or memory left.

    `outcome` says what is known. A checkout may simply be made again with the same key: it replays what was
    committed, or does it now. Of a call without a key or a state that replays it (`stock.adjust` without a
    `change_key`), `retryable` is False where the outcome is unknown: look first.
    """

    code = "unavailable"
    http_status = 503
    retryable = True
    outcome: Literal["unknown", "nothing_done"] = "unknown"
    """unknown: the call may have been committed, its answer was lost; nothing_done: it was not."""

    @property
    def _may_be_done(self) -> bool:
        # An error that the server reports undid the statement; a crash and a broken protocol say nothing of it.
        return self.sqlstate is None or self.sqlstate[:2] == "08" or self.sqlstate == "57P02"


class ReadOnlyServer(Unavailable):
    """The session takes no writes: a standby, an old primary, or a transaction that was begun read-only.

    Raised after a pool was asked for a session that was opened anew. Connect to the primary.
    """

    code = "read_only_server"
    retryable = False


class PoolerConflict(CheckoutError):
    """A pooler between the service and PostgreSQL lost or mixed up prepared statements.

    Nothing was done. Set `prepare_threshold=None` on the connections, or let the pooler keep prepared statements
    (pgbouncer from 1.21 on: `max_prepared_statements`).
    """

    code = "pooler_conflict"
    http_status = 500


class NotInstalled(CheckoutError):
    """The database lacks the functions, has older ones, or this role may not call them.

    Run `pycheckout migrate`, or grant the role its rights with `checkout_grant`.
    """

    code = "not_installed"
    http_status = 500


class UnknownMarket(CheckoutError):
    """The map of markets has none of that name. Look at the name, or at the map: `Markets` tells what is in it."""

    code = "unknown_market"
    http_status = 404


class MigrationError(CheckoutError):
    """The schema could not be brought to this release.

    What was applied before the failure stays. Mend what the message names and run
    it again.
    """

    code = "migration_failed"
    http_status = 500


BY_SQLSTATE: dict[str, type[CheckoutError]] = {
    "OC001": CartNotFound,
    "OC002": CartNotActive,
    "OC003": CartExpired,
    "OC004": NoOrderableItems,
    "OC005": InvalidRequest,
    "OC006": IdempotencyKeyReused,
    "OC007": CartInconsistent,
    "OC008": AdTokenInvalid,
    "OC009": SnapshotImmutable,
    "OC010": InsufficientInventory,
    "OC011": OrderNotFound,
    "OC012": OrderStateConflict,
    "OC014": MarketMoving,
    "OC015": MarketMoved,
    # PostgreSQL refused an argument before our functions saw it.
    "22021": InvalidRequest,  # a character that the database's encoding lacks
    "22003": InvalidRequest,  # a number out of range
    "22007": InvalidRequest,  # no instant, no interval
    "22008": InvalidRequest,  # an instant out of range
    "22009": InvalidRequest,  # an offset from UTC out of range
    "2201W": InvalidRequest,  # a negative number of rows
    "22P02": InvalidRequest,  # no uuid, no JSON
    "22P05": InvalidRequest,  # \u0000 in JSON
    "54000": InvalidRequest,  # JSON too large for jsonb
    "54001": InvalidRequest,  # JSON nested too deeply
    "55P03": Busy,  # lock_timeout
    "40001": Busy,  # serialization failure
    "40P01": Busy,  # deadlock
    "57014": Unavailable,  # statement_timeout, or canceled
    "57P01": Unavailable,  # terminated by an administrator
    "57P02": Unavailable,  # crash of another backend
    "57P03": Unavailable,  # starting up or shutting down
    "57P05": Unavailable,  # idle_session_timeout
    "25P03": Unavailable,  # idle_in_transaction_session_timeout
    "25P04": Unavailable,  # transaction_timeout
    "25006": ReadOnlyServer,  # a standby, or the old primary
    "53100": Unavailable,  # disk full
    "53200": Unavailable,  # out of memory
    "53300": Unavailable,  # too many connections
    "53400": Unavailable,  # a configured limit is exceeded, of temporary files for one
    "58030": Unavailable,  # the disk answers with errors
    "26000": PoolerConflict,  # no such prepared statement on this server connection
    "42P05": PoolerConflict,  # there is one of that name already, of another client
    "08P01": PoolerConflict,  # a message that the pooler did not expect
    "42883": NotInstalled,  # no such function, or no such parameter
    "42501": NotInstalled,  # no right to call it
    "42P01": NotInstalled,  # no such table
    "3F000": NotInstalled,  # no such schema
}

# Codes not listed above, by their class.
_BY_CLASS: dict[str, type[CheckoutError]] = {"OC": CheckoutError, "08": Unavailable}


_SAY_WHERE = "If it is in a schema of its own, pass schema=, or put that schema on the search_path."

# What the server leaves without a hint, by its code, else by the class.
_HINTS: dict[str | type[CheckoutError], str] = {
    "42501": (
        "The role lacks the right for this call. The owner of the schema gives it by checkout_grant, or by "
        "checkout_grant_quotes, _orders, _payments, _stock, _relay or _operators; to purge, to erase and to audit are "
        "the owner's own (docs/deploying.md)."
    ),
    NotInstalled: f"Run `pycheckout migrate`. {_SAY_WHERE}",
    InvalidRequest: "Correct the request and send it again.",
    Busy: "Nothing was done: make the same call again, in a new transaction.",
    Unavailable: "With the same key the same call may be made again; `outcome` says whether this one may be committed.",
    PoolerConflict: "A pooler is in between. Connect with prepare_threshold=None, or have it keep prepared statements.",
    ReadOnlyServer: "Connect to the primary (target_session_attrs=read-write), or begin the transaction read-write.",
}

_REPLACED = (
    "A release is being deployed: call again. If it stays so, `pycheckout doctor` names the step that is missing."
)

_IN_A_FUNCTION_OF_OURS = re.compile(
    r"\b(?:checkout|outbox|inventory|market|orders?|cart|payment|vendor_orders?"
    r"|ad_(?:signing_key|token|base64url|epoch|hmac|json))_\w+\"?\("
)


def failed_inside(exc: psycopg.Error) -> bool:
    """Whether the function was found, called and running: what failed is a statement in it, or in a host's trigger.

    CONTEXT then has a line for each function that was running, the called one last: a sentence in the server's
    language, with the function's name as it is. An argument that cannot be read has a CONTEXT too. It is about a place
    in our own statement, or about a parameter, whose value stands last, in quotes, if the server repeats it.
    """
    context = exc.diag.context or ""
    if exc.diag.statement_position is not None or context.endswith("'"):
        return False
    return _IN_A_FUNCTION_OF_OURS.search(context.rpartition("\n")[2]) is not None


# PL/Proxy puts these before what the market said, and has one code, XX000, for a server that it does not reach.
_BY_PROXY = re.compile(r"^(?:PL/Proxy function )?[^\s(]+\(\d+\): \[[^\]]*\] (?:REMOTE (?:ERROR|FATAL|PANIC): )?")
_PROXY_CUT_OFF = re.compile(r"\bPQ\w+: |connection to server|could not connect|server closed the connection")


def translated(exc: psycopg.Error) -> CheckoutError | None:
    """The typed error for a psycopg error, or None if it is none of ours.

    A function that a host's trigger does not find, a right that it lacks and a value that it cannot read are the
    host's errors, and come as they are. A step of ours that a function of ours does not find is being replaced by
    a deployment, and is there when it has ended.
    """
    sqlstate = exc.sqlstate
    if sqlstate is None:
        # Without a code the server did not answer. (A pool's time-out is one of
        # these.) An aborted pipeline is the caller's: an earlier statement failed.
        gone = isinstance(exc, psycopg.OperationalError) and not isinstance(exc, psycopg.errors.PipelineAborted)
        return Unavailable(str(exc), hint=_HINTS[Unavailable]) if gone else None
    if sqlstate == "08P01" and exc.diag.severity_nonlocalized == "FATAL":
        # pgbouncer's code for whatever ends a connection
        return Unavailable(str(exc)[:200], sqlstate=sqlstate, hint=_HINTS[Unavailable])
    if sqlstate == "XX000" and (by_proxy := _BY_PROXY.match(exc.diag.message_primary or "")):
        said = (exc.diag.message_primary or "")[by_proxy.end() :]
        if _PROXY_CUT_OFF.search(said):
            return Unavailable(said[:200], hint="The market's server does not answer PL/Proxy.")
    if sqlstate[:2] != "OC" and _kind(sqlstate) in (InvalidRequest, NotInstalled) and failed_inside(exc):
        innermost, *_ = (exc.diag.context or "").split("\n")
        if sqlstate == "42883" and all(map(_IN_A_FUNCTION_OF_OURS.search, (innermost, exc.diag.message_primary or ""))):
            return Busy(str(exc.diag.message_primary)[:200], sqlstate=sqlstate, hint=_REPLACED)
        return None
    return error_from(
        sqlstate, exc.diag.message_primary or str(exc), detail=exc.diag.message_detail, hint=exc.diag.message_hint
    )


def error_from(
    sqlstate: str, message: str, *, detail: str | None = None, hint: str | None = None
) -> CheckoutError | None:
    """The typed error for what PostgreSQL reported, or None if it is none of ours: for drivers other than psycopg.

    `detail`: the text of DETAIL, JSON where the error is one of pycheckout's. What comes back is to be raised from the
    driver's error. A lost connection has no SQLSTATE and is not for this function.
    """
    kind = _kind(sqlstate)
    # PostgreSQL repeats a value that it cannot read: megabytes of it, or a token in the wrong place.
    if kind is None:
        return None
    message = _BY_PROXY.sub("", message)
    hint = hint.removeprefix("Remote hint: ") if hint else _HINTS.get(sqlstate) or _HINTS.get(kind)
    return kind(message[:200], sqlstate=sqlstate, detail=json_object(detail), hint=hint)


def _kind(sqlstate: str) -> type[CheckoutError] | None:
    return BY_SQLSTATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2])


_OF_A_CHECKOUT = frozenset(
    {"cart_records", "vendor_orders", "order_line_items", "payment_intents", "checkout_requests", "outbox_events"}
    | {"inventory_items", "inventory_slots", "inventory_holds"}
)


def refused_at_commit(exc: psycopg.Error, *, has_hosts_rows: bool = False) -> CartInconsistent | None:
    """The typed error for a rule that is deferred to the COMMIT (Django's foreign keys are), or None.

    Only where the transaction is the call's own: nothing else in it can have broken the rule. Where the host wrote rows
    too, by a hook, a rule of another table than a checkout writes is the host's.
    """
    if exc.sqlstate is None or exc.sqlstate[:2] != "23" or failed_inside(exc):
        return None
    if has_hosts_rows and exc.diag.table_name not in _OF_A_CHECKOUT:
        return None
    about = {"problem": "constraint", "constraint": exc.diag.constraint_name, "table": exc.diag.table_name}
    return CartInconsistent(
        (exc.diag.message_primary or str(exc))[:200],
        sqlstate=exc.sqlstate,
        detail={name: value for name, value in about.items() if value is not None},
        hint="Quote the cart again; if the error comes back, the constraint or what it looks for is at fault.",
    )


def not_installed(
    exc: psycopg.Error, installed: str | None, release: str, *, asked: bool = True, elsewhere: Sequence[str] = ()
) -> NotInstalled:
    """The error for a function or a view that the database lacks, in one clear sentence.

    `elsewhere`: the schemas that have pycheckout where the search_path names none of them.
    """
    hint = _HINTS[NotInstalled]
    if not asked:
        message = (
            f"A function of pycheckout {release} is not in this database, or not in a schema of the search_path: "
            "`pycheckout doctor` says what is missing, `pycheckout migrate` brings it."
        )
        hint = _SAY_WHERE
    elif installed is None and elsewhere:
        [first, *others] = elsewhere
        message = "pycheckout is in no schema of the search_path: it is in schema " + ", ".join(elsewhere)
        hint = f"Pass {'the one that is meant, as ' if others else ''}schema={first!r}, or put it on the search_path."
    elif installed is None:
        message = (
            "pycheckout is not installed in this database, or not in a schema of the "
            "search_path: run `pycheckout migrate`."
        )
        hint = _SAY_WHERE
    elif version_numbers(installed) > version_numbers(release):
        message = (
            f"The database has pycheckout {installed}, which this package, {release}, is "
            "too old for: upgrade the package."
        )
        hint = f"pip install --upgrade 'pycheckout>={installed}'"
    else:
        message = f"The database has pycheckout {installed} and this package is {release}: `pycheckout migrate` is due."
    return NotInstalled(message, sqlstate=exc.sqlstate, hint=hint)


def version_numbers(version: str) -> list[int]:
    """What releases are ordered by."""
    return [int(number) for number in re.findall(r"\d+", version)]


def json_object(text: str | None) -> dict[str, Any]:
    """DETAIL as a dict; PostgreSQL's own errors have prose there, which is {}."""
    try:
        value = json.loads((text or "").removeprefix("Remote detail: "))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
