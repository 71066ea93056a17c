"""Write the pages of docs/ that repeat what stands elsewhere: `make docs-reference`.

reference-sql.md and entities.md come from the comments and the catalogue of a migrated database, reference-python.md
from the docstrings, quote.schema.json from the classes of a quote, events/README.md from the schemas beside it,
deploy/plproxy.sql from the signatures. The text is the same on every PostgreSQL and Python that is supported:
`tests/test_docs.py` and `tests/test_plproxy.py` compare it.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from docs_site import plproxy

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

# Who calls what: the grant, the heading, and who that is.
SCOPES = {
    "checkout": ("checkout_grant", "For the service that checks out"),
    "quotes": ("checkout_grant_quotes", "For whoever writes quotes"),
    "orders": ("checkout_grant_orders", "For whoever changes orders"),
    "payments": ("checkout_grant_payments", "For whoever hears of payments"),
    "stock": ("checkout_grant_stock", "For whoever keeps stock"),
    "relay": ("checkout_grant_relay", "For the relay"),
    "operators": ("checkout_grant_operators", "For people who watch"),
}
OWNER = "For the owner"
# What an argument means, unless a docstring says it; what it means to one function alone under "function.argument".
ARGUMENTS = {
    "accepts_unnamed": "Whether tokens that name no key are verified with this one too.",
    "ad_token_policy": "`drop` leaves bad ad tokens out, `error` refuses the cart.",
    "after": "Where the page before ended; null for the first.",
    "available": "Units that can be ordered, as counted.",
    "batch": "How many events at most.",
    "buyer_store_id": "The store that buys. Take it from your authentication, never from a request.",
    "cart": "The quote: [quotes.md](quotes.md).",
    "cart_id": "The cart.",
    "change_key": "1 to 255 visible characters, the same for each retry of one change, which then counts once.",
    "checkout_audit_slice.after": "The anchor that the slice before ended with; null for the first.",
    "claim_id": "What the claim answered.",
    "currency": "ISO 4217, that of the order.",
    "delta": "Units to add, or to take if negative.",
    "error": "What the broker said; it stands in `last_error`.",
    "event_id": "The event.",
    "id": "The event.",
    "idempotency_key": "1 to 255 visible characters, new for each intent of the buyer, the same for each retry of it.",
    "ids": "The events.",
    "kid": "Name of the key, as the header of a token names it.",
    "kind": "`authorized`, `captured`, `voided`, `refunded`, `failed`, `disputed` or `reversed`.",
    "lease": "How long the events are nobody else's.",
    "levels": "Units by product id.",
    "line_id": "The order line.",
    "max_attempts": "After so many refusals the event is parked.",
    "max_rows": "How many rows at most; call again until it answers 0.",
    "objects": "Those alone; null for all of the scope.",
    "occurred_at": "When it happened, as the provider says; null if it does not.",
    "older_than": "The age.",
    "order_id": "The vendor order.",
    "order_adjust.amount_cents": "What is added to the order, in minor units; below 0, what is taken off.",
    "order_line_fulfil.details": "What the event tells of the parcel beside it, a JSON object of 16 kB at most.",
    "order_line_fulfil.qty": "Units that are shipped, one or more; null for all that the line holds.",
    "order_line_release.qty": "Units that are turned down, one or more; null for all that the line holds.",
    "order_line_return.qty": "Units that come back, one or more; null for all that are out.",
    "order_number": "The number that the order shows; null for all.",
    "orders_list.max_rows": "How many orders at most, 1 to 200.",
    "orders_list.purchase_order": "The buyer's own number, exactly as the checkout was given it; null for all.",
    "outbox_discard.reason": "Why; up to 1000 characters of it stand in `last_error`.",
    "payment_record.amount_cents": "This order's share of the event, in minor units, above 0; of a failure 0 or more.",
    "payment_record.details": "What you want to keep beside it, a JSON object of 16 kB at most; in no event.",
    "payment_method": "A value of the enum `payment_method`: `cash`, `ach`, ...",
    "product_id": "The product.",
    "product_ids": "The products, 10,000 at most.",
    "provider": "Who tells it: 1 to 100 visible ASCII characters.",
    "provider_event_id": "The event's id there: 1 to 255 visible ASCII characters.",
    "reason": "1 to 1000 characters; it is told in the event.",
    "inventory_restock.qty": "Units that arrived, one or more.",
    "restock": "Whether the units are available again.",
    "reservation_policy": "What a short line rejects: itself (`partial`), its vendor (`vendor`) or everything (`all`).",
    "role_name": "A role of the server.",
    "scope": "`checkout`, `quotes`, `orders`, `payments`, `stock`, `relay` or `operators`.",
    "secret": "Its bytes, 32 or more.",
    "shipping_address": "`{line1, line2, city, state, postal_code, country}`; line1, city and country are a must.",
    "shipping_line": "`{code, title, price_cents}`, the buyer's choice as you found it; in no total.",
    "since": "Orders and carts from then on; null for all.",
    "slots": "Rows, 1 to 256; 1 puts the product back into one.",
    "statuses": "Orders in these states alone; null for all.",
    "token": "The token, as it came.",
    "until": "The new deadline: later than the old one, at most 366 days away.",
    "upto": "The anchor that the slice ends with; null for the last.",
    "vendor_orders_expire.max_rows": "How many orders at most, 1 to 1000.",
    "vendor_store_id": "The store that sells. Take it from your authentication, never from a request.",
}
# Tables in the order of a checkout; one that is not named here comes after them.
ORDER = [
    "cart_records",
    "cart_vendor_groups",
    "cart_items",
    "checkout_requests",
    "inventory_items",
    "inventory_slots",
    "inventory_holds",
    "inventory_baseline",
    "vendor_orders",
    "order_line_items",
    "payment_intents",
    "outbox_events",
    "outbox_dead_letters",
    "outbox_purges",
    "checkout_audits",
    "ad_signing_keys",
]
# The same id without a foreign key: one, many, and the column of the many.
UNDECLARED = [
    ("cart_records", "checkout_requests", "cart_id"),
    ("cart_records", "vendor_orders", "cart_id"),
    ("inventory_items", "inventory_slots", "product_id"),
    ("inventory_items", "inventory_baseline", "product_id"),
    ("order_line_items", "inventory_holds", "line_item_id"),
]


def _nested(levels: int) -> str:
    inside = f"(?:[^{{}}]|{_nested(levels - 1)})*" if levels > 1 else "[^{}]*"
    return rf"\{{{inside}\}}"


# What is code in a comment already: what stands in backticks, and JSON, up to five levels deep.
_CODE = re.compile(rf"(`[^`]+`|{_nested(5)})")
MADE = "<!-- Written by `make docs-reference` from the {}: change those. -->\n"


def pages(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """The pages by name; the SQL of the schema that comes first in the search_path."""
    catalogue = _Catalogue(conn)
    return {
        "reference-sql.md": _functions(catalogue),
        "entities.md": _entities(catalogue),
        "reference-python.md": _python(),
        "events/README.md": _events(),
        "quote.schema.json": _quote(),
    }


class _Catalogue:
    """What the pages are made of, by name."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        def rows(query: str) -> list[Any]:
            with conn.cursor(row_factory=namedtuple_row) as cursor:
                return cursor.execute(query).fetchall()

        self.functions = rows(_FUNCTIONS)
        self.privileges = rows("select * from checkout_privileges()")
        self.relations = sorted(rows(_RELATIONS), key=lambda it: (_place(it.name), it.name))
        self.columns = rows(_COLUMNS)
        self.constraints = rows(_CONSTRAINTS)
        self.indexes = rows(_INDEXES)
        self.triggers = rows(_TRIGGERS)
        self.enums = rows(_ENUMS)
        names = [it.name for it in (*self.functions, *self.relations)]
        self._names = re.compile(rf"\b({'|'.join(sorted(names, key=len, reverse=True))})\b(\(\))?")

    def prose(self, comment: str | None) -> str:
        """A comment as Markdown: names of functions and tables, and JSON, set as code."""
        parts = _CODE.split(comment or "")
        return "".join(
            f"`{part.strip('`')}`" if n % 2 else _errors_linked(self._names.sub(r"`\1\2`", part.replace("<", "&lt;")))
            for n, part in enumerate(parts)
        )

    def cell(self, text: str | None) -> str:
        return _cell(self.prose(text))


def _errors_linked(text: str) -> str:
    """With a link for each code of ours; the name behind it, which repeats it, goes."""
    import pycheckout

    def link(found: re.Match[str]) -> str:
        kind = pycheckout.error_from(found[1], "")
        name = kind.code if kind else ""
        repeats = found[2] and found[2].strip() == name
        return f"[{found[1]} {name}](errors.md#{name}){'' if repeats else found[2] or ''}" if name else found[0]

    return re.sub(r"\b(OC\d{3})\b( [a-z]+(?:_[a-z]+)+)?", link, text)


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


# Functions


def _functions(catalogue: _Catalogue) -> str:
    by_scope: dict[str, list[Any]] = {scope: [] for scope in (*SCOPES, OWNER)}
    scopes: dict[str, list[str]] = {}
    for given in catalogue.privileges:
        if given.kind == "function":
            scopes.setdefault(given.object.split("(")[0], []).append(given.scope)
    inner = []
    for function in catalogue.functions:
        if function.result == "trigger":
            continue
        if not function.pinned:
            inner.append(function)
        else:
            by_scope[scopes.get(function.name, [OWNER])[0]].append(function)

    text = [
        "# SQL functions\n",
        MADE.format("comments in db/"),
        "What a database with pycheckout can be asked, as its own comments say it. Nobody may call any of it until a\n"
        "role is granted it; the owner of the schema may call all. Codes such as OC004: [errors.md](errors.md).\n",
    ]
    for scope, functions in by_scope.items():
        if not functions:
            continue
        grant, heading = SCOPES.get(scope, (None, OWNER))
        text.append(f"## {heading}\n")
        if grant:
            text.append(f"Granted by `select {grant}('a_role');`\n")
        for function in functions:
            text.append(f"### {function.name}\n")
            text.append(f"```sql\n{_signature(function)}\n```\n")
            text.append(catalogue.prose(function.comment) + "\n")
            if function.arguments:
                names = [name for name, *_ in zip(*function.arguments, strict=True)]
                text.append("\n".join(_meaning(function.name, name) for name in names) + "\n")
            also = [SCOPES[it][0] for it in scopes.get(function.name, [])[1:]]
            notes = [f"Granted by {_listed(also)} as well."] if also else []
            notes.append(f"Source: {_source(function.name)}.")
            text.append(" ".join(notes) + "\n")
    text.append("## Inner steps\n")
    text.append(
        "What the functions above are made of. No role is granted any of it, and names and parameters may change with\n"
        "any release. How they fit together: [concepts.md](concepts.md).\n"
    )
    text.append("| function | what it does |\n|---|---|")
    text += [f"| {_source(function.name)} | {catalogue.cell(function.comment)} |" for function in inner]
    return "\n".join(text) + "\n"


def _argument_of(function: str, name: str) -> str | None:
    return ARGUMENTS.get(f"{function}.{name}") or ARGUMENTS.get(name)


def _meaning(function: str, name: str) -> str:
    said = _argument_of(function, name)
    return f"- `{name}`" + (f": {said}" if said else "")


def _signature(function: Any) -> str:
    arguments = (
        [_argument(*argument) for argument in zip(*function.arguments, strict=True)] if function.arguments else []
    )
    result = function.result.replace("timestamp with time zone", "timestamptz")
    if result.startswith("TABLE("):
        columns = result.removeprefix("TABLE(").removesuffix(")").split(", ")
        result = "table (\n" + ",\n".join(f"  {column}" for column in columns) + "\n)"
    else:
        result = result.replace("SETOF", "setof")
    one_line = f"{function.name}({', '.join(arguments)}) returns {result.splitlines()[0]}"
    if len(one_line) <= 88:
        return f"{function.name}({', '.join(arguments)}) returns {result}"
    return f"{function.name}(\n" + ",\n".join(f"  {it}" for it in arguments) + f"\n) returns {result}"


def _argument(name: str, type_: str, default: str | None) -> str:
    return f"{name} {_short(type_)}" + (f" default {_constant(default)}" if default else "")


def _short(type_: str) -> str:
    return type_.replace("timestamp with time zone", "timestamptz").replace("character varying", "varchar")


def _constant(expression: str) -> str:
    """An expression of the catalogue without the cast behind a constant: its type stands beside it."""
    plain = re.sub(r"^('(?:[^']|'')*'|NULL)::[\w\" ]+(\[\])?$", r"\1", expression)
    return plain.replace("NULL", "null")


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join(([", ".join(quoted[:-1])] if quoted[1:] else []) + quoted[-1:])


def _source(name: str) -> str:
    file = next((ROOT / "db" / "functions").rglob(f"{name}.sql"), None)
    return f"[{name}](../{file.relative_to(ROOT).as_posix()})" if file else f"`{name}`"


# Tables and views


def _entities(catalogue: _Catalogue) -> str:
    tables = [it for it in catalogue.relations if it.kind == "table"]
    views = [it for it in catalogue.relations if it.kind == "view"]
    text = [
        "# Tables and views\n",
        MADE.format("comments in db/"),
        "What the schema of a migrated database holds. Times are `timestamptz`, amounts are minor units of the cart's\n"
        "currency. A service needs none of it: it calls the [functions](reference-sql.md).\n",
        "## How they belong together\n",
        "A solid line is a foreign key, a dotted one the same id without one.\n",
        "```mermaid\n" + "\n".join(_diagram(catalogue)) + "\n```\n",
        "## Tables\n",
    ]
    for table in tables:
        text += [f"### {table.name}\n", *_relation(catalogue, table)]
    text.append("## Views\n")
    for view in views:
        text += [f"### {view.name}\n", *_relation(catalogue, view)]
    text.append("## Types\n")
    text.append("A host may add values to an enum.\n")
    text.append("| type | values or fields | meaning |\n|---|---|---|")
    for type_ in catalogue.enums:
        values = ", ".join(f"`{value}`" for value in type_.labels)
        text.append(f"| `{type_.name}` | {values} | {catalogue.cell(type_.comment)} |")
    return "\n".join(text) + "\n"


def _diagram(catalogue: _Catalogue) -> Iterator[str]:
    """An entity-relationship diagram of what belongs together, with keys alone as attributes."""
    keys = {it.table for it in catalogue.constraints}
    foreign = [(it.refers_to, it.table, it.columns[0], it.name) for it in catalogue.constraints if it.type == "f"]
    unique = {(it.table, *it.columns) for it in catalogue.constraints if it.type in "pu"}
    known = {(it.table, it.name) for it in catalogue.columns}
    drawn: dict[str, None] = {}
    yield "erDiagram"
    yield "  direction LR"
    for line, edges in (("--", [edge[:3] for edge in foreign]), ("..", UNDECLARED)):
        for one, many, column in edges:
            assert {one, many} <= keys and (many, column) in known, f"{many}.{column} is not there"
            drawn |= dict.fromkeys((one, many))
            yield f"  {one} ||{line}{'o|' if (many, column) in unique else 'o{'} {many} : {column}"
    joins = {(many, column) for _, many, column, *_ in (*foreign, *UNDECLARED)}
    for name in sorted(drawn, key=_place):
        primary = next(it.columns for it in catalogue.constraints if it.table == name and it.type == "p")
        yield f"  {name} {{"
        for column in catalogue.columns:
            if column.table != name:
                continue
            marks = ["PK"] * (column.name in primary) + ["FK"] * ((name, column.name) in joins)
            if marks or column.name in ("checkout_group_id", "status", "total_cents", "available_qty", "reserved_qty"):
                yield f"    {_short(column.type)} {column.name}" + (f" {', '.join(marks)}" if marks else "")
        yield "  }"


def _relation(catalogue: _Catalogue, relation: Any) -> Iterator[str]:
    yield catalogue.prose(relation.comment) + "\n"
    readers = [
        SCOPES[it.scope][0] for it in catalogue.privileges if it.object == relation.name and "select" in it.privilege
    ]
    if readers:
        yield f"Readable with {_listed(readers)}.\n"
    columns = [it for it in catalogue.columns if it.table == relation.name]
    yield "| column | type | rule | meaning |\n|---|---|---|---|"
    for column in columns:
        rules = "not null" if column.not_null else ""
        if column.default:
            rules += (", " if rules else "") + f"default `{_constant(column.default)}`"
        if column.identity:
            rules = "generated"
        yield f"| `{column.name}` | {_short(column.type)} | {rules} | {catalogue.cell(column.comment)} |"
    yield ""
    more = [
        *_constraints(catalogue, relation.name),
        *_indexes(catalogue, relation.name),
        *_triggers(catalogue, relation.name),
    ]
    if more:
        yield "\n".join(more) + "\n"


def _constraints(catalogue: _Catalogue, table: str) -> Iterator[str]:
    what = {"p": "primary key", "u": "unique", "f": "foreign key", "c": "check"}
    for it in catalogue.constraints:
        if it.table != table:
            continue
        # The catalogue writes a check with parentheses around each part; the keyword stands before.
        definition = re.sub(r"^(PRIMARY KEY|UNIQUE|FOREIGN KEY|CHECK) ?", "", it.definition)
        yield f"- {what[it.type]} `{it.name}`: `{definition}`"


def _indexes(catalogue: _Catalogue, table: str) -> Iterator[str]:
    for it in catalogue.indexes:
        if it.table == table:
            definition = re.sub(r"^.* USING btree ", "", it.definition)
            yield f"- {'unique index' if it.unique else 'index'} `{it.name}`: `{definition}`"


def _triggers(catalogue: _Catalogue, table: str) -> Iterator[str]:
    for it in catalogue.triggers:
        if it.table == table:
            yield f"- trigger `{it.name}`: {catalogue.prose(it.comment).removeprefix('Trigger: ')}"


# Python


def _python() -> str:
    import pycheckout
    from pycheckout import _calls

    public = {name: getattr(pycheckout, name) for name in pycheckout.__all__}
    errors = [name for name, it in public.items() if inspect.isclass(it) and issubclass(it, pycheckout.CheckoutError)]
    install = ["migrate", "rollback", "Migrated"]
    objects = [name for name, it in public.items() if inspect.isclass(it) and issubclass(it, _calls.Group)]
    policies = ["AdTokenPolicy", "ReservationPolicy"]
    functions = [name for name, it in public.items() if inspect.isfunction(it) and name not in install]
    results = [name for name in public if name not in (*errors, *install, *objects, *policies, *functions)]
    text = [
        "# Python\n",
        MADE.format("docstrings in pycheckout/"),
        "Everything public. How to use it in a framework: [services.md](services.md). Names that begin with an\n"
        "underscore are nobody's to call, and may change with any release.\n",
    ]
    text += _calls_of_the_objects(pycheckout)
    text += _section("What they answer", "pycheckout", results, "Frozen dataclasses. " + _units())
    text.append("## Errors\n")
    text.append("When each comes, and what to do then: [errors.md](errors.md).\n")
    text.append("| error | `code` | HTTP | the same call again | |\n|---|---|---|---|---|")
    errors.sort(key=lambda name: name != "CheckoutError")
    for name in errors:
        it = public[name]
        again = "yes" if it.retryable else ""
        linked = (
            f"[`{it.code}`](errors.md#{it.code})" if name not in ("CheckoutError", "MigrationError") else f"`{it.code}`"
        )
        text.append(f"| `{name}` | {linked} | {it.http_status} | {again} | {_said(it, whole=True)} |")
    text.append("")
    text.append(_directive("pycheckout", "CheckoutError"))
    text += _section("Installing", "pycheckout", install, "As a command: [cli.md](cli.md).")
    for module in ("ads", "alembic", "http", "markets", "relay", "sqlalchemy", "testing"):
        of = import_module(f"pycheckout.{module}")
        text += _section(f"pycheckout.{module}", f"pycheckout.{module}", of.__all__, inspect.getdoc(of) or "")
    return "\n".join(text)


def _calls_of_the_objects(pycheckout: Any) -> Iterator[str]:
    """The definitions, whose signatures are made when they run."""
    from pycheckout import _calls

    yield "## Calls\n"
    text, said = _arguments_apart(inspect.getdoc(pycheckout.Checkout) or "", ["conn", "schema"])
    first, *rest = text.split("\n\n", 1)
    yield f"{first}\n"
    yield from (f"- `{name}`: {meaning}" for name, meaning in said.items())
    yield ""
    yield from (f"{paragraphs}\n" for paragraphs in rest)
    yield (
        "`AsyncCheckout` has the same calls to be awaited, on an async psycopg connection or pool, or SQLAlchemy's\n"
        "AsyncConnection or AsyncSession. `pycheckout.execute(conn, ...)`, `result` and `put_cart` (`quotes.put`) are\n"
        "calls without an object, `execute_async`, `result_async` and `put_cart_async` their async forms. From psql\n"
        "each is [one select](reference-sql.md).\n"
    )
    yield "Each call also takes:\n"
    described = _field_docstrings(_calls.CallOptions)
    for name, hint in _calls.CallOptions.__annotations__.items():
        yield f"- `{name}`: `{hint.__forward_arg__}`. {described[name]}"
    yield ""
    checkout = pycheckout.Checkout(None)
    groups = {"checkout": checkout}
    groups |= {f"checkout.{name}": it for name, it in vars(checkout).items() if isinstance(it, _calls.Group)}
    for path, group in groups.items():
        for name, it in _definitions(type(group)):
            signature = inspect.signature(getattr(group, name))
            yield f"### `{path}.{name}` {{ #{path}.{name} }}\n"
            yield "```python\n" + _written(f"{path}.{name}", signature) + "\n```\n"
            taken = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
            [called] = re.findall(r"\{schema\}(\w+)", it._sql)[:1]
            text, said = _arguments_apart(inspect.getdoc(it) or "", [each.name for each in taken])
            first, *rest = _linked(text, pycheckout).split("\n\n", 1)
            yield first + "\n"
            for each in taken:
                default = "" if each.default is each.empty else f", `{each.default!r}` if it is not given"
                meaning = said.get(each.name) or _argument_of(called, each.name)
                yield f"- `{each.name}` (`{_plain(each.annotation)}`{default})" + (f": {meaning}" if meaning else "")
            if taken:
                yield ""
            yield from (f"{paragraphs}\n" for paragraphs in rest)
            yield f"Returns {_answer(signature.return_annotation)}.\n"


# "`name`: what it is.", or "; " if the next one follows; of several, "`name` and `other` ({code}): what they are."
_ARGUMENT = re.compile(
    r"(?:\A|(?<=[.;])\s)(`\w+`(?:\sand\s`\w+`)*)(\s\([^)]*\))?:\s(.*?)(?:\.(?=\s|\Z)|;(?=\s`\w+`:))", re.DOTALL
)


def _arguments_apart(text: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """A docstring without the sentences that say what an argument is, and these."""
    said: dict[str, str] = {}

    def take(found: re.Match[str]) -> str:
        of = re.findall(r"`(\w+)`", found[1])
        if not set(of) <= set(names):
            return found[0]
        sentence = " ".join(found[3].split())
        said.update(dict.fromkeys(of, sentence[:1].upper() + sentence[1:] + (found[2] or "").replace("\n", " ") + "."))
        return ""

    paragraphs = [_ARGUMENT.sub(take, paragraph).strip() for paragraph in text.split("\n\n")]
    return "\n\n".join(filter(None, paragraphs)), said


def _definitions(group: type) -> Iterator[tuple[str, Any]]:
    """In the order in which they stand."""
    from pycheckout import _calls

    for kind in group.__mro__:
        yield from ((name, it) for name, it in vars(kind).items() if isinstance(it, _calls.Call))


def _written(path: str, signature: inspect.Signature) -> str:
    words: list[str] = []
    for each in signature.parameters.values():
        if each.kind is each.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        if each.kind is not each.VAR_KEYWORD:
            default = "" if each.default is each.empty else f" = {each.default!r}"
            words.append(f"{each.name}: {_plain(each.annotation)}{default}")
    answer = f" -> {_plain(signature.return_annotation)}"
    line = f"{path}({', '.join(words)}){answer}"
    return line if len(line) <= 88 else f"{path}(\n" + "".join(f"    {word},\n" for word in words) + f"){answer}"


def _plain(hint: Any) -> str:
    return hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))


def _answer(hint: Any) -> str:
    """A type, with a link to each class of ours in it."""
    return re.sub(r"\b([A-Z]\w+)\b", lambda found: _link(found[1]), _plain(hint).replace("|", "or"))


def _link(name: str) -> str:
    import pycheckout

    kind = getattr(pycheckout, name, None)
    return f"[`{name}`](#pycheckout.{name})" if inspect.isclass(kind) else f"`{name}`"


def _linked(text: str, pycheckout: Any) -> str:
    """A docstring with a link for each error that it names."""

    def link(found: re.Match[str]) -> str:
        kind = getattr(pycheckout, found[0], None)
        of_ours = inspect.isclass(kind) and issubclass(kind, pycheckout.CheckoutError)
        return f"[{found[0]}](errors.md#{kind.code})" if kind is not None and of_ours else found[0]

    return re.sub(r"(?<![`.\w])[A-Z]\w+(?![`\w])", link, text)


def _field_docstrings(kind: type) -> dict[str, str]:
    """The texts below the fields of a class, by name."""
    [body] = [node for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef)]
    found: dict[str, str] = {}
    for field, said in itertools.pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(said.value.value).split())
    return found


def _section(heading: str, module: str, names: Iterable[str], lead: str) -> Iterator[str]:
    yield f"## {heading}\n"
    yield re.sub(r"\b(docs/(\w+\.md))\b", r"[\2](\2)", lead) + "\n"
    yield "| name | what it is |\n|---|---|"
    for name in names:
        yield f"| `{name}` | {_said(getattr(import_module(module), name))} |"
    yield ""
    for name in names:
        yield _directive(module, name)


def _directive(module: str, name: str) -> str:
    """Where the site has the signature and the whole docstring."""
    return f"::: {module}.{name}\n"


def _said(it: object, *, whole: bool = False) -> str:
    """The first sentence of a docstring, or all of it, for the cell of a table; the value of what has none."""
    if isinstance(it, dict):
        return f"`{it}`"
    paragraphs = (inspect.getdoc(it) or "").split("\n\n")
    text = " ".join(" ".join(paragraphs if whole else paragraphs[:1]).split())
    return _cell(text if whole else re.split(r"(?<=\.) (?=[A-Z])", text)[0])


def _units() -> str:
    from pycheckout import _types

    return " ".join((inspect.getdoc(_types) or "").split("\n\n")[1].split())


# Quotes


def _quote() -> str:
    """The JSON Schema of a quote, as the classes have it."""
    import pycheckout

    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Quote",
        "description": "What cart_put takes. Amounts are minor units of the currency; null is as good as left out.",
        **_object(pycheckout.Quote),
    }
    return json.dumps(schema, indent=2) + "\n"


# A quote has them, though a class may make them up.
_REQUIRED = {
    "id of Quote",
    "subtotal_cents of VendorGroup",
    "total_cents of VendorGroup",
    "line_subtotal_cents of Line",
    "amount_cents of TaxLine",
    "code of VendorShippingLine",
    "code of PaymentTerms",
    "net_days of PaymentTerms",
}

# What cart_put looks into, though it only copies it.
_CLOSED = {"TaxLine", "VendorShippingLine", "PaymentTerms"}


def _object(kind: Any) -> dict[str, Any]:
    said = _field_docstrings(kind)
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name[0] != "_"}
    made = {name: it for name, it in vars(kind).items() if isinstance(it, property) and name[0] != "_"}
    hints |= {name: get_type_hints(it.fget)["return"] for name, it in made.items()}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    return {
        "type": "object",
        "properties": {
            name: _schema(hint) | ({"description": text} if (text := said.get(name) or _doc(made.get(name))) else {})
            for name, hint in hints.items()
        },
        "required": [name for name in hints if name in needed - {"items"} or f"{name} of {kind.__name__}" in _REQUIRED],
        "additionalProperties": False,
    }


def _doc(of: object) -> str:
    return "" if of is None else inspect.getdoc(of) or ""


def _schema(hint: Any) -> dict[str, Any]:
    kinds = [each for each in get_args(hint) or (hint,) if each is not NoneType]
    if get_origin(hint) is Sequence or get_origin(kinds[0]) is Sequence:
        [of] = get_args(hint if get_origin(hint) is Sequence else kinds[0])
        return {"type": "array", "items": _schema(of)}
    if UUID in kinds:
        return {"type": "string", "format": "uuid"}
    if is_dataclass(kinds[0]):
        # Those that describe alone are the host's: they may have more members.
        closed = kinds[0].__module__.endswith("_quotes") or getattr(kinds[0], "__name__", "") in _CLOSED
        return _object(kinds[0]) | ({} if closed else {"additionalProperties": True})
    names = {
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        str: {"type": "string"},
        datetime: {"type": "string", "format": "date-time"},
    }
    return dict(names.get(kinds[0], {"type": "object"}))


# Events


def _events() -> str:
    text = [
        "# Events\n",
        MADE.format("schemas beside it"),
        "What the outbox holds, a row an event, and what Debezium publishes. A CloudEvent of the relay has the same\n"
        "`data`, and the rest as attributes: [relay.md](../relay.md). Both kinds of message as an AsyncAPI document:\n"
        "[asyncapi.yaml](asyncapi.yaml).\n",
    ]
    for file in sorted((DOCS / "events").glob("*.schema.json")):
        schema = json.loads(file.read_text(encoding="utf-8"))
        text.append(f"## {schema['title'].split(',')[0]}\n")
        named = schema["properties"]["data"]["$id"]
        text.append(f"{schema['description']} Schema: [{file.name}]({file.name}), of the data `{named}`.\n")
        text.append("| field | type | meaning |\n|---|---|---|")
        text += _fields(schema, "")
        text.append("")
    return "\n".join(text)


def _fields(schema: Any, path: str) -> Iterator[str]:
    """A row a field; `path` is where the object stands, such as `data.vendor_orders[].`."""
    for name, field in schema["properties"].items():
        each = field.get("items", field)
        at = f"{path}{name}" + ("[]" if "items" in field else "")
        optional = "" if name in schema["required"] else ", optional"
        yield f"| `{at}` | {_kind(each)}{optional} | {_cell(field.get('description', ''))} |"
        if "properties" in each:
            yield from _fields(each, f"{at}.")


def _kind(field: Any) -> str:
    if values := field.get("enum", [field["const"]] if "const" in field else []):
        return " or ".join(f"`{json.dumps(value)}`" for value in values)
    types = [field["type"]] if isinstance(field["type"], str) else field["type"]
    formats = {"uuid": "uuid", "date-time": "timestamp"}
    kinds = [formats.get(field.get("format", ""), kind) if kind == "string" else kind for kind in types]
    return " or ".join(kinds) + (f", at least {field['minimum']}" if "minimum" in field else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_FUNCTIONS = """
select routine.proname::text as name,
       pg_get_function_result(routine.oid) as result,
       exists (select from unnest(proconfig) as setting where setting like 'search_path=%') as pinned,
       obj_description(routine.oid, 'pg_proc') as comment,
       -- of the parameters that a caller gives: names, types, defaults
       (select array[array_agg(proargnames[n] order by n),
                     array_agg(format_type(proargtypes[n - 1], null) order by n),
                     array_agg(pg_get_function_arg_default(routine.oid, n) order by n)]
          from generate_series(1, pronargs) as n
        having count(*) > 0) as arguments
  from pg_proc as routine
 where routine.pronamespace = current_schema()::regnamespace
 order by routine.proname::text collate "C"
"""
_RELATIONS = """
select class.relname::text as name,
       case class.relkind when 'v' then 'view' else 'table' end as kind,
       obj_description(class.oid, 'pg_class') as comment
  from pg_class as class
 where class.relnamespace = current_schema()::regnamespace
   and class.relkind in ('r', 'p', 'v') and class.relname !~ '^_?yoyo_'
"""
_COLUMNS = """
select class.relname::text as table, attribute.attname::text as name,
       format_type(attribute.atttypid, attribute.atttypmod) as type,
       attribute.attnotnull as not_null, attribute.attidentity <> '' as identity,
       pg_get_expr(def.adbin, def.adrelid, true) as default,
       col_description(class.oid, attribute.attnum) as comment
  from pg_class as class
  join pg_attribute as attribute on attribute.attrelid = class.oid and attribute.attnum > 0
                                and not attribute.attisdropped
  left join pg_attrdef as def on def.adrelid = class.oid and def.adnum = attribute.attnum
 where class.relnamespace = current_schema()::regnamespace
   and class.relkind in ('r', 'p', 'v') and class.relname !~ '^_?yoyo_'
 order by class.relname::text collate "C", attribute.attnum
"""
# Without NOT NULL constraints, which PostgreSQL 18 names and earlier ones do not: columns say it.
_CONSTRAINTS = """
select class.relname::text as table, con.conname::text as name, con.contype::text as type,
       pg_get_constraintdef(con.oid, true) as definition,
       (select relname::text from pg_class where oid = con.confrelid) as refers_to,
       array(select attname::text from unnest(con.conkey) with ordinality as key (attnum, place)
               join pg_attribute as attribute on attribute.attrelid = con.conrelid and attribute.attnum = key.attnum
              order by place) as columns
  from pg_constraint as con
  join pg_class as class on class.oid = con.conrelid
 where class.relnamespace = current_schema()::regnamespace and class.relname !~ '^_?yoyo_'
   and con.contype in ('p', 'u', 'f', 'c')
 order by class.relname::text collate "C", position(con.contype in 'pufc'), con.conname::text collate "C"
"""
_INDEXES = """
select class.relname::text as table, index_class.relname::text as name, index.indisunique as unique,
       pg_get_indexdef(index.indexrelid, 0, true) as definition
  from pg_index as index
  join pg_class as class on class.oid = index.indrelid
  join pg_class as index_class on index_class.oid = index.indexrelid
 where class.relnamespace = current_schema()::regnamespace and class.relname !~ '^_?yoyo_'
   and not exists (select from pg_constraint where conindid = index.indexrelid and contype in ('p', 'u'))
 order by class.relname::text collate "C", index_class.relname::text collate "C"
"""
_TRIGGERS = """
select trigger.tgrelid::regclass::text as table, trigger.tgname::text as name,
       obj_description(trigger.tgfoid, 'pg_proc') as comment
  from pg_trigger as trigger
  join pg_class as class on class.oid = trigger.tgrelid
 where class.relnamespace = current_schema()::regnamespace and not trigger.tgisinternal
 order by 1, trigger.tgname::text collate "C"
"""
# Enums, and composite types that are no table's row.
_ENUMS = """
select type.typname::text as name, obj_description(type.oid, 'pg_type') as comment,
       case type.typtype
         when 'e' then array(select enumlabel::text from pg_enum where enumtypid = type.oid order by enumsortorder)
         else array(select attname || ' ' || format_type(atttypid, atttypmod)
                      from pg_attribute where attrelid = type.typrelid and attnum > 0 order by attnum)
       end as labels
  from pg_type as type
 where type.typnamespace = current_schema()::regnamespace
   and (type.typtype = 'e' or exists (select from pg_class where oid = type.typrelid and relkind = 'c'))
 order by type.typname::text collate "C"
"""


def main() -> None:
    import pycheckout
    from pycheckout._embedded import embedded_server

    with embedded_server(fsync=False) as server:
        pycheckout.migrate(server.dsn())
        with psycopg.connect(server.dsn()) as conn:
            for name, text in pages(conn).items():
                (DOCS / name).write_text(text, encoding="utf-8")
            plproxy.FILE.write_text(plproxy.written(conn), encoding="utf-8")


if __name__ == "__main__":
    main()
