"""Break db/ in one place after another, and see the test suite go red each time.

    python tests/mutants.py                        all of them (make mutants)
    python tests/mutants.py --list                 only their names
    python tests/mutants.py --only inventory       those whose names match this regular expression

A mutant lacks one lock, SKIP LOCKED, ON CONFLICT, constraint, unique index, trigger, validation, exception handler or
pinned path, locks in another order, or takes the time of the transaction for that of the clock. Rules over the SQL text
find them, so what is added to db/ tomorrow has its mutants too. The REVOKE in the file of a function has none: a
deployment takes away whatever a new function is given.

Each is made in a copy of the repository. First run the tests that speak of what was taken out, then, if these pass, the
whole suite. Which tests call a function is known from the run without mutants (tests/called.py), or from a file that
such a run wrote: --calls. Then only these run for a mutant of it: no other could tell it from the original.

Exit status 1: a mutant survived, hung or did not load, or one that is said to be equivalent was caught. 2: the suite is
red before anything was taken out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import queue
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[1]
FUNCTIONS = ROOT / "db" / "functions"
sys.path.insert(0, str(ROOT))

from pycheckout._embedded import EmbeddedServer, embedded_server  # noqa: E402

# What no mutant can change, what changes with every edit, and what is about servers and networks that fail.
_LEFT_OUT = {
    "test_catalogue",  # compares texts and lists; whether a guard works is for the others to say
    "test_connection_cut",
    "test_crashes",
    "test_demo",
    "test_docs",
    "test_embedded",
    "test_failover",
    "test_functions_hash",
    "test_moves",  # test_market_steps has their steps
    "test_overload",
    "test_packaging",
    "test_pgbouncer",
    "test_pgspot",
    "test_plpgsql_check",
    "test_readme",
    "test_release",
    "test_repository",
    "test_services",  # holds tests as text, which would be taken for its own
}
# Slow, and only a mutant of a migration can change their outcome.
_OF_MIGRATIONS = re.compile(r"test_(migrat|deploy|legacy)")

# Mutants that no test can tell from the original, and why.
EQUIVALENT: dict[str, str] = {
    "ad_token_verify: without jsonb_typeof(v_claims -> 'exp') <> 'number'": (
        "What is no number fails in its cast, or is null in the comparison: the reason is invalid_claims either way."
    ),
    "ad_token_verify: exception when feature_not_supported": (
        "Only before PostgreSQL 16, in a database of encoding SQL_ASCII, is an escaped letter an error of this class."
    ),
    "checkout_convert: exception when numeric_value_out_of_range #2": (
        "Takes a slot held in vain twice in a row, and then a row that is full."
    ),
    "checkout_convert: perform inventory_raise_full(v_cart.id, v_vendors)": "So does this.",
    "checkout_erase: where request.buyer_store_id = any (v_buyer_store_ids)": (
        "The way to the rows by their key: a key of another buyer is bound to no cart of theirs."
    ),
    "checkout_metrics: now() for clock_timestamp() #5": "Bounds the time of a walk alone, which decides no test.",
    "checkout_uuid: now() for clock_timestamp()": "Not compiled on PostgreSQL 18, which has uuidv7().",
    "inventory_lock_available: now() for clock_timestamp()": "inventory_write_available dates the row again.",
    "inventory_take: and stock.slots = 1": (
        "A split product has no units in its own row: inventory_items_split_stock_in_slots."
    ),
    "order_emit_event: now() for clock_timestamp()": "Due is due: nobody sees the event before the commit.",
    "payment_emit_event: now() for clock_timestamp()": "Due is due: nobody sees the event before the commit.",
    "outbox_lock_claimed: and event.claim_id is not distinct from outbox_lock_claimed.claim_id": (
        "The statement after it asks again: a row more is locked, and no other is returned."
    ),
    "checkout_validate_amounts: never v_is_their_sum and v_cart.discounts_cents = v_cart.subtotal_cents - v_cart.total_cents": (  # noqa: E501
        "A short cut: the sums are looked at again, and found to be right."
    ),
    "inventory_take_slot: version = for version >=": (
        "A slot that changes within the statement is passed over as a busy one is, and found by the next."
    ),
    "cart_open: never found": "The next turn finds the cart that this one made.",
    "inventory_split: now() for clock_timestamp()": "inventory_write_available dates the rows again.",
    "0001_baseline: primary key of checkout_groups": "drop_checkout_groups drops the table that 0001 made.",
}

_MUTATED = "mutants_mutated"
_TEST_SECONDS = 90
_SUITE_SECONDS = 4 * 3600  # of one process; a test that hangs has ended before


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    file: Path
    start: int
    end: int
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    rule: str
    edits: tuple[Edit, ...]
    words: frozenset[str]
    hints: frozenset[str]
    gap: frozenset[str]
    """What it names of what it no longer checks or raises: a field, an argument, a SQLSTATE; the function as well."""

    @property
    def file(self) -> Path:
        return self.edits[0].file

    @property
    def is_function(self) -> bool:
        return FUNCTIONS in self.file.parents


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    verdict: str
    by: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run of pytest said: `by` is the test that failed; `seconds` are those of slow tests."""

    verdict: str
    by: str
    seconds: dict[str, float]


# The rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file, and the same text with comments and the contents of string literals blanked out."""

    file: Path
    text: str
    code: str

    @classmethod
    def read(cls, file: Path) -> Source:
        text = file.read_text(encoding="utf-8")

        def blank(found: re.Match[str]) -> str:
            inner = re.sub(r"[^\n]", " ", found[0])
            return f"'{inner[1:-1]}'" if found[0][0] == "'" else inner

        return cls(file=file, text=text, code=re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", blank, text, flags=re.S))

    @property
    def is_function(self) -> bool:
        return FUNCTIONS in self.file.parents

    @property
    def stem(self) -> str:
        return self.file.name.removesuffix(".sql").removeprefix("pycheckout_")

    def finditer(self, pattern: str) -> Iterator[re.Match[str]]:
        return re.finditer(pattern, self.code, re.S)

    def edit(self, start: int, end: int, text: str = "") -> Edit:
        return Edit(file=self.file, start=start, end=end, text=text)

    def top_level(self, pattern: str, start: int, end: int) -> Iterator[re.Match[str]]:
        """Matches between two places that stand in no parentheses opened there."""
        depth, at = 0, start
        for found in re.compile(rf"[()]|{pattern}", re.S).finditer(self.code, start, end):
            if found[0] in "()":
                depth += 1 if found[0] == "(" else -1
            elif depth == 0 and found.start() >= at:
                at = found.end()
                yield found

    def close(self, opened: int) -> int:
        """The place after the parenthesis that closes the one at `opened`."""
        depth = 0
        for at in range(opened, len(self.code)):
            depth += {"(": 1, ")": -1}.get(self.code[at], 0)
            if depth == 0:
                return at + 1
        raise ValueError(f"{self.file.name}: parenthesis at {opened} is never closed")


# What a rule yields: a label, and the edits.
Found = Iterator[tuple[str, list[Edit]]]

_LOCK = r"\bfor\s+(?:no\s+key\s+)?(?:update|key\s+share|share)\b(?:\s+of\s+\w+)?(?:\s+(?:skip\s+locked|nowait))?"
_REFUSAL = r"\b(?:raise\s+exception\b|perform\s+\w*(?:_raise_|_check|_validate_|_confirm)\w*\s*\()"


def locks(source: Source) -> Found:
    for found in source.finditer(_LOCK):
        yield found[0], [source.edit(*found.span())]
    for found in source.finditer(r"\s+skip\s+locked"):
        yield "skip locked", [source.edit(*found.span())]
    for found in source.finditer(r"\bperform\s+pg_advisory\w+\s*\([^;]*|\block\s+table\b[^;]*"):
        yield found[0], [source.edit(*found.span(), "null")]


def lock_order(source: Source) -> Found:
    """Where rows are locked one after another, the other way round. (Migrations are alone, but for their triggers.)"""
    for found in source.finditer(r"\border\s+by\s+[\w.]+(?=(?:\s*,\s*[\w.]+)*\s+(?:for|loop)\b)"):
        if source.is_function or re.match(r"[^;]*?\bfor\b", source.code[found.end() :]):
            yield f"{found[0]} desc", [source.edit(found.end(), found.end(), " desc")]


def locked_conditions(source: Source) -> Found:
    """What a locked read asks of the row besides its key, such as whose it is and what is left of it."""
    for lock in source.finditer(_LOCK):
        start = _query_start(source, lock.start())
        clauses = r"\bwhere\b|\band\b|\border\s+by\b|\blimit\b|\bgroup\s+by\b"
        joints = list(source.top_level(clauses, start, lock.start()))

        def joint_text(joint: re.Match[str], after: re.Match[str]) -> str:
            return source.text[joint.start() : after.start()].strip()

        for joint, after in itertools.pairwise([*joints, lock]):
            if joint[0] == "and":
                yield source.text[joint.start() : after.start()], [source.edit(joint.start(), after.start())]
            elif joint[0] == "where" and after[0] == "and" and not re.search(r"\bid\b|_id\b", joint_text(joint, after)):
                # not the key: that stands in the join
                yield f"{joint_text(joint, after)} and", [source.edit(joint.end(), after.end())]
    for found in source.finditer(r"\b(where|and)\s+(?:\w+\.)?buyer_store_id\s*=\s*(?:\w+\s*\([^()]*\)|[\w.]+)"):
        if not re.search(_LOCK, source.code[found.end() : source.code.index(";", found.end())]):
            yield found[0], [source.edit(*found.span(), "where true" if found[1] == "where" else "")]


def _query_start(source: Source, at: int) -> int:
    depth = 0
    while at > 0:
        at -= 1
        depth += {")": 1, "(": -1}.get(source.code[at], 0)
        if depth < 0 or source.code[at] == ";":
            break
    return at + 1


def on_conflict(source: Source) -> Found:
    for found in source.finditer(r"\bon\s+conflict\b[^;]*"):
        yield found[0], [source.edit(*found.span())]


def refusals(source: Source) -> Found:
    for found in source.finditer(_REFUSAL + r"[^;]*"):
        yield source.text[found.start() : found.end()], [source.edit(*found.span(), "null")]


def conditions(source: Source) -> Found:
    """Every alternative of a condition that refuses; the whole of it where no refusal follows in the same branch."""
    for found in source.finditer(r"(?<!end )\b(?:els)?if\b"):
        then = next(source.top_level(r"\bthen\b", found.end(), len(source.code)), None)
        if then is None or ";" in source.code[found.end() : then.start()]:
            continue
        branch = source.code[then.end() : _branch_end(source, then.end())]
        if re.search(_REFUSAL, branch):
            yield from _alternatives(source, found.end(), then.start())
        elif "v_problem :=" in branch or (source.is_function and branch.strip() == "return;"):
            yield from _alternatives(source, found.end(), then.start())
            yield (
                f"never {source.text[found.end() : then.start()].strip()}",
                [source.edit(found.end(), then.start(), " false ")],
            )
    if not re.search(r"_(check|validate)_", source.stem):
        return
    for found in source.finditer(r"\bwhen\b"):
        then = next(source.top_level(r"\bthen\b", found.end(), len(source.code)), None)
        if then is None:
            continue
        condition = source.code[found.end() : then.start()]
        verdict = source.code[then.end() :].lstrip()
        if re.search(r"[<>=]|\bis\s+null\b", condition) and re.match(r"'|null\b", verdict):
            yield (
                f"never {source.text[found.end() : then.start()].strip()}",
                [source.edit(found.end(), then.start(), " false ")],
            )
            yield from _alternatives(source, found.end(), then.start())
    for found in source.finditer(r"\bwhere\b"):
        depth, end = 0, found.end()
        while end < len(source.code) and depth >= 0 and source.code[end] != ";":
            depth += {"(": 1, ")": -1}.get(source.code[end], 0)
            end += 1
        ends = next(source.top_level(r"\bunion\b|\border\s+by\b|\bgroup\s+by\b", found.end(), end - 1), None)
        yield from _alternatives(source, found.end(), ends.start() if ends else end - 1)


def _branch_end(source: Source, start: int) -> int:
    found = re.compile(r"\b(?:elsif|else|end\s+if)\b").search(source.code, start)
    return found.start() if found else len(source.code)


def _alternatives(source: Source, start: int, end: int) -> Found:
    """One without each operand of `a or b`, and of `(a and b) is not true`."""
    word = "or"
    while source.code[start].isspace():
        start += 1
    if source.code[start] == "(" and source.code[source.close(start) : end].strip() == "is not true":
        word, start, end = "and", start + 1, source.close(start) - 1
    joints = [
        joint
        for joint in source.top_level(rf"\b{word}\b", start, end)
        if not re.search(r"\bbetween\s+\S+\s*$", source.code[start : joint.start()])
    ]
    if not joints:
        return
    bounds = [start, *(joint.start() for joint in joints), end]
    for number, (left, right) in enumerate(itertools.pairwise(bounds)):
        removed = (left, right) if number else (left, joints[0].end())
        operand = source.text[removed[0] : removed[1]].strip()
        operand = operand.removeprefix(word) if number else operand.removesuffix(word)
        yield f"without {operand.strip()}", [source.edit(*removed)]


def handlers(source: Source) -> Found:
    for found in source.finditer(r"\bwhen\s+((?!v_)[a-z]+(?:_[a-z]+)+(?:\s+or\s+[a-z_]+)*)\s+then\b"):
        for name in re.compile(r"\b(?!or\b)[a-z_]+").finditer(source.code, *found.span(1)):
            yield f"exception when {name[0]}", [source.edit(*name.span(), "sqlstate 'ZZZZZ'")]


def paths(source: Source) -> Found:
    for found in source.finditer(r"\bsecurity\s+definer\n|\bset\s+search_path\s+from\s+current\n"):
        name = re.findall(r"function\s+(\w+)", source.code[: found.start()])[-1]
        yield f"{name} {found[0].strip()}", [source.edit(*found.span())]


def versions(source: Source) -> Found:
    """A slot that is waited for has another version by then."""
    for found in source.finditer(r"\bversion\s*>="):
        yield "version = for version >=", [source.edit(*found.span(), "version =")]
    for found in source.finditer(r",?\s*version\s*=\s*stock\.version\s*\+\s*1"):
        yield "version stays", [source.edit(*found.span())]


def clocks(source: Source) -> Found:
    for found in source.finditer(r"\bclock_timestamp\(\)"):
        yield "now() for clock_timestamp()", [source.edit(*found.span(), "now()")]


def constraints(source: Source) -> Found:
    """Those of a migration; with each goes what later migrations say of it."""
    if source.is_function or source.file.name.endswith(".rollback.sql"):
        return
    for found in source.finditer(r"\bcheck\s*\("):
        named = re.search(r"\bconstraint\s+(\w+)\s+$", source.code[: found.start()])
        if named is None:
            continue
        opened = found.end() - 1
        edits = [source.edit(opened, source.close(opened), "(true)")]
        yield f"check {named[1]}", edits
    for found in source.finditer(r"\bconstraint\s+(\w+)\s+unique\s*\([^)]*\)"):
        yield f"unique {found[1]}", [source.edit(found.start(), found.end(), f"constraint {found[1]} check (true)")]
    for found in source.finditer(r"\bprimary\s+key\b(\s*\([^)]*\))?"):
        table = re.findall(r"\bcreate\s+table\s+(?:if\s+not\s+exists\s+)?(\w+)", source.code[: found.start()])[-1]
        edits = [source.edit(*found.span(), "check (true)" if found[1] else "not null")]
        if "identity" in source.code[found.start() - 30 : found.start()]:
            edits = [source.edit(*found.span())]
        on_delete = r"(\s+on\s+delete\s+(cascade|set\s+null))?"
        for key in source.finditer(rf"\bconstraint\s+\w+\s+references\s+{table}\s*\(\w+\){on_delete}"):
            edits.append(source.edit(*key.span()))
        yield f"primary key of {table}", edits
    for found in source.finditer(r"\bcreate\s+unique\s+index\b[^;]*?(\w+)\s+on\s+\w+[^;]*;"):
        unique = source.code.index("unique ", found.start())
        edits = [source.edit(unique, unique + len("unique "))]
        for later in sorted(source.file.parent.glob("*.sql")):
            text = later.read_text(encoding="utf-8")
            for confirm in re.finditer(rf"checkout_index_confirm\('\w+', '{found[1]}',[^;]*?\btrue\b", text):
                edits.append(Edit(file=later, start=confirm.end() - 4, end=confirm.end(), text="false"))
        yield f"unique index {found[1]}", edits
    for found in source.finditer(r"\bcreate\s+(?:or\s+replace\s+)?trigger\s+(\w+)[^;]*;"):
        yield f"trigger {found[1]}", [source.edit(*found.span())]


# With words that tests of such guards, and the names of their files, are likely to have.
RULES: dict[Callable[[Source], Found], str] = {
    locks: "races busy overselling concurrent blocked wait_until_blocked waits at_once lock_timeout",
    lock_order: "lock order deadlock opposite blocked",
    locked_conditions: "races busy blocked wait_until_blocked waits meanwhile another buyer",
    on_conflict: "races twice again at_once blocked",
    refusals: "validation refused raises sqlstate detail problem field",
    conditions: "validation refused raises sqlstate detail problem field none",
    handlers: "refused raises sqlstate detail",
    constraints: "constraints violation refused identity duplicate",
    versions: "races waited slot blocked version split",
    clocks: "races waited clock blocked transaction began passed since",
    paths: "search path callers reaches definer privileges shadow",
}


_OF_REFUSALS = {"refusals", "conditions", "handlers"}


def mutants() -> list[Mutant]:
    found: list[Mutant] = []
    names: Counter[str] = Counter()
    for file in [*sorted(FUNCTIONS.rglob("*.sql")), *sorted((ROOT / "db/migrations").glob("*.sql"))]:
        source = Source.read(file)
        for rule, hints in RULES.items():
            for label, edits in rule(source):
                name = f"{source.stem}: {' '.join(label.split())[:110]}"
                names[name] += 1
                if names[name] > 1:
                    name += f" #{names[name]}"
                touched = " ".join(source.text[max(edit.start - 60, 0) : edit.end + 60] for edit in edits[:1])
                words = frozenset(_words(f"{touched} {label} {source.stem} {hints}"))
                clues = frozenset(hints.split())
                gap = frozenset({source.stem, *_named(label), *_codes(source, edits[0])})
                found.append(
                    Mutant(name=name, rule=rule.__name__, edits=tuple(edits), words=words, hints=clues, gap=gap)
                )
    return found


def _named(label: str) -> set[str]:
    """Texts, and what is asked of a row or an argument."""
    return {word for pair in re.findall(r"'(\w+)'|\.(\w+)", label) for word in pair if len(word) > 2}


def _codes(source: Source, edit: Edit) -> set[str]:
    """SQLSTATEs of the branch that was changed, and of what it calls to raise; OC005 has a field that says more."""
    rest = re.split(r"\n\s*(?:when|elsif|else|end)\b", source.text[edit.end :])[0]
    branch = source.text[edit.start : edit.end] + rest
    raised = [FUNCTIONS.rglob(f"{name}.sql") for name in re.findall(r"\w+_raise_\w+", branch)]
    texts = [branch, *(file.read_text(encoding="utf-8") for files in raised for file in files)]
    return {code for text in texts for code in re.findall(r"OC\d{3}", text)} - {"OC005"}


# Running them


class Ranking:
    """The tests, the likely killers of a mutant first: with the rarest of its words, or killers of its like before."""

    def __init__(self, folder: Path) -> None:
        self._callers: defaultdict[str, list[str]] = defaultdict(list)
        self._refused: defaultdict[str, set[str]] = defaultdict(set)
        self._tests: dict[str, set[str]] = {}
        self._files: list[str] = []
        for file in sorted(folder.glob("test_*.py")):
            if file.stem in _LEFT_OUT:
                continue
            text = file.read_text(encoding="utf-8")
            self._files.append(file.name)
            for found in re.finditer(
                r"^(?:@[^\n]*\n(?:[ )][^\n]*\n)*)*def (test_\w+).*?(?=^\S(?<!\))|\Z)", text, re.M | re.S
            ):
                self._tests[f"{file.name}::{found[1]}"] = _words(found[0])
        seen = Counter(word for words in self._tests.values() for word in words)
        self._rarity = {word: math.log(len(self._tests) / count) for word, count in seen.items()}
        self._killed: defaultdict[tuple[Path, str], Counter[str]] = defaultdict(Counter)
        self._seconds: dict[str, float] = {}
        self._above = _above()
        self._ids = _collected(folder.parent)
        for name, ids in self._ids.items():
            if name in self._tests:
                self._tests[name] |= {word for test in ids for word in re.findall(r"OC\d{3}", test)}

    def learn(self, calls: Path) -> None:
        """Which functions each test called, and which refused it, as tests/called.py wrote it down."""
        for line in calls.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            test = record["test"].removeprefix("tests/")
            for function in {*record["functions"], *record["raised"]}:
                self._callers[function].append(test)
            for function in record["raised"]:
                self._refused[function].add(test)

    def killed(self, mutant: Mutant, by: str) -> None:
        for like in ((mutant.file, mutant.rule), (mutant.file, ""), (Path(), mutant.rule)):
            self._killed[like][by.partition("[")[0]] += 1

    def took(self, seconds: dict[str, float]) -> None:
        """Learn which tests are slow."""
        self._seconds.update(seconds)

    def tests(self, mutant: Mutant) -> list[str]:
        above = self._above[mutant.file.stem]

        def score(name: str) -> float:
            alike = {(mutant.file, mutant.rule): 6, (mutant.file, ""): 3, (Path(), mutant.rule): 3}
            before = sum(weight * min(self._killed[like][name], 3) for like, weight in alike.items())
            told = self._rarities(mutant, self._tests[name]) + self._akin(mutant, name)
            told += sum(self._rarity[word] for word in mutant.gap & self._tests[name])
            if mutant.file.stem in self._tests[name]:
                told += 6.0
            elif above & self._tests[name]:
                told += 6.0 / math.sqrt(len(above))
            return told + before - min(self._seconds.get(name, 1.0) / 2, 3)

        def by_score() -> list[str]:
            of_files = set(self.files(mutant))
            names = [name for name in self._tests if name.partition("::")[0] in of_files]
            return sorted(names, key=score, reverse=True)

        if mutant.is_function and (callers := self._callers[mutant.file.stem]):
            of_name: defaultdict[str, list[str]] = defaultdict(list)
            for test in callers:
                of_name[test.partition("[")[0]].append(test)
            # Not each call is counted: those that speak of the function may have made it all the same.
            for name in by_score()[:40]:
                if name not in of_name:
                    of_name[name] = self._ids[name]
            names = sorted((name for name in of_name if name in self._tests), key=score, reverse=True)
            # First what names the gap, and what the function refused. Then the likeliest with all their parameters, if
            # these are few; of others one of each, then two: what fails for one parameter often fails for all of them.
            first: list[tuple[int, int, str]] = []
            refused = self._refused[mutant.file.stem] if mutant.rule in _OF_REFUSALS else ()
            label = mutant.name.partition(":")[2].lower()
            rare = {word for word in re.findall(r"[a-z]{4,}", label) if self._rarity.get(word, 0.0) > 4}
            for place, name in enumerate(names):
                whole = place < 8 and len(of_name[name]) <= 40
                for number, test in enumerate(of_name[name], start=1):
                    named = (mutant.gap | rare) & set(re.split(r"[-\]\s]", test.partition("[")[2]))
                    turn = -2 if named else -1 if test in refused else 0 if whole else number
                    first.append((turn, place, test))
            return [test for *_, test in sorted(first)]
        return by_score()

    def knows_callers(self, mutant: Mutant) -> bool:
        return mutant.is_function and bool(self._callers[mutant.file.stem])

    def files(self, mutant: Mutant) -> list[str]:
        """All test files that say something about this kind of mutant, the likelier ones first."""
        of_migrations = [name for name in self._files if _OF_MIGRATIONS.match(name)]
        others = [name for name in self._files if name not in of_migrations]
        return others if mutant.is_function else of_migrations + others

    def _rarities(self, mutant: Mutant, words: set[str]) -> float:
        # Long tests have many words, and take long.
        return sum(self._rarity.get(word, 0.0) for word in mutant.words & words) / math.sqrt(len(words))

    def _akin(self, mutant: Mutant, test: str) -> float:
        ours, theirs = ({part.rstrip("s") for part in re.split(r"[_.:]+", name)} for name in (mutant.file.stem, test))
        hinted = len({hint.rstrip("s") for hint in mutant.hints} & theirs)
        return 4.0 * len((ours & theirs) - {"test", "checkout"}) + 3.0 * hinted


def _collected(root: Path) -> defaultdict[str, list[str]]:
    """Every test by its name without parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    found: defaultdict[str, list[str]] = defaultdict(list)
    for test in re.findall(r"^tests/(\S+::.+)$", listed, re.M):
        found[test.partition("[")[0]].append(test)
    return found


def _above() -> defaultdict[str, set[str]]:
    """By which functions each is called, and by which these are. Those of the owner list the names of others."""
    files = [file for file in FUNCTIONS.rglob("*.sql") if "admin" not in file.parts]
    texts = {file.stem: set(re.findall(r"\w+", file.read_text(encoding="utf-8"))) for file in files}
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name in texts:
        todo = [name]
        while todo:
            called = todo.pop()
            new = {caller for caller, words in texts.items() if called in words} - found[name] - {name}
            found[name] |= new
            todo += new
    return found


def _words(text: str) -> set[str]:
    """Words as they stand, and their parts: of `wait_until_blocked` also `wait`, `until` and `blocked`."""
    whole = set(re.findall(r"\w{3,}", text))
    return whole | {part for word in whole for part in word.split("_") if len(part) > 3}


class Copy:
    """A copy of the repository with a server of its own."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self._folder = folder
        self._server = server
        listed = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
        for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]:
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self._environment = os.environ | {"TEST_DATABASE_URL": server.dsn(), "PYTHONPATH": str(folder)}
        self._create("mutants_pristine")
        if problem := self._migrate("mutants_pristine"):
            raise RuntimeError(problem)

    def apply(self, edits: tuple[Edit, ...]) -> None:
        """Write the files with these edits."""
        for file in {edit.file for edit in edits}:
            text = file.read_text(encoding="utf-8")
            for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
                if edit.file == file:
                    text = text[: edit.start] + edit.text + text[edit.end :]
            (self._folder / file.relative_to(ROOT)).write_text(text, encoding="utf-8")

    def restore(self, edits: tuple[Edit, ...]) -> None:
        for file in {edit.file for edit in edits}:
            shutil.copy2(file, self._folder / file.relative_to(ROOT))

    def load(self, mutant: Mutant) -> str:
        """Why the mutant is no SQL that a server takes; empty if it is."""
        if not mutant.is_function:
            self._create("mutants_load")
            return self._migrate("mutants_load")
        text = (self._folder / mutant.file.relative_to(ROOT)).read_text(encoding="utf-8")
        self._create(_MUTATED, "mutants_pristine")
        try:
            with psycopg.connect(self._server.dsn(_MUTATED)) as conn:
                conn.execute("set local search_path = public, pg_temp")  # as a deployment does
                conn.execute(text)
                deployment = runpy.run_path(str(self._folder / "db" / "deploy.py"))
                conn.execute("update checkout_releases set hash = %s", (deployment["functions_hash"](),))
        except psycopg.Error as exc:
            return str(exc).splitlines()[0]
        return ""

    def test(
        self, names: list[str], template: str | None = None, calls: Path | None = None, workers: int = 1
    ) -> Report:
        """What test files, or single tests, say, of clones of a database. What they call is written to `calls`."""
        options = [
            "--durations=0",
            "--durations-min=0.05",
            "-x",
            "-q",
            "--tb=no",
            "-rfE",
            "-p",
            "no:cacheprovider",
            f"--timeout={_TEST_SECONDS}",
        ]
        environment = self._environment | ({"TEST_TEMPLATE": template} if template else {})
        if workers > 1:
            options += ["-n", str(workers)]
        if calls:
            options += ["-p", "called"]
            environment = environment | {"CALLED": str(calls), "PYTHONPATH": f"{self._folder}:{self._folder / 'tests'}"}
        command = [sys.executable, "-m", "pytest", *options, *(f"tests/{name}" for name in names)]
        try:
            run = subprocess.run(
                command, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=_SUITE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return Report(verdict="hangs", by="", seconds={})
        seconds: Counter[str] = Counter()
        for took, name in re.findall(r"^([\d.]+)s \w+ +tests/([^\s\[]+)", run.stdout, re.M):
            seconds[name] += float(took)
        failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - (.*))?$", run.stdout, re.M)
        by = failed[1] if failed else ""
        if run.returncode == 0:
            verdict = "green"
        elif failed and "::" in by:
            verdict = "hangs" if "pytest-timeout" in (failed[2] or "") else "red"
        else:
            said = (run.stdout + run.stderr).strip().splitlines() or [f"pytest ended with {run.returncode}"]
            verdict, by = "does not run", by or said[-1]
        return Report(verdict=verdict, by=by, seconds=seconds)

    def tidy(self) -> None:
        """What a test that was cut short left on the server must not fail the next one."""
        with psycopg.connect(self._server.dsn(), autocommit=True) as conn:
            databases = "select datname from pg_database where datname !~ '^(postgres|template[01]|mutants_pristine)$'"
            for (name,) in conn.execute(databases).fetchall():
                conn.execute(sql.SQL("alter database {} is_template false").format(sql.Identifier(name)))
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            for (name,) in conn.execute("select rolname from pg_roles where rolname !~ '^(postgres$|pg_)'").fetchall():
                conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))

    def _create(self, name: str, template: str = "template0") -> None:
        made = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        with psycopg.connect(self._server.dsn(), autocommit=True) as conn:
            conn.execute(made)

    def _migrate(self, name: str) -> str:
        program = "import sys, pycheckout; pycheckout.migrate(sys.argv[1])"
        command = [sys.executable, "-c", program, self._server.dsn(name)]
        run = subprocess.run(command, cwd=self._folder, env=self._environment, capture_output=True, text=True)
        return run.stderr.strip().splitlines()[-1] if run.returncode else ""


class Run:
    def __init__(self, todo: list[Mutant], ranking: Ranking, first: int, quick: bool) -> None:
        self._todo: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for mutant in todo:
            self._todo.put(mutant)
        self._ranking = ranking
        self._first = first
        self._quick = quick
        self._printing = threading.Lock()
        self.outcomes: dict[str, Outcome] = {}

    def work(self, copy: Copy) -> None:
        while not self._todo.empty():
            try:
                mutant = self._todo.get_nowait()
            except queue.Empty:
                return
            self._one(copy, mutant)

    def _one(self, copy: Copy, mutant: Mutant) -> None:
        began = time.monotonic()
        copy.apply(mutant.edits)
        try:
            verdict, by = "does not load", copy.load(mutant)
            if not by:
                tests = self._ranking.tests(mutant)
                stages = [tests[:20], tests[20 : self._first]]
                if not self._quick:
                    whole = tests[self._first :] if self._ranking.knows_callers(mutant) else self._ranking.files(mutant)
                    stages.append(whole)
                for stage in filter(None, stages):
                    report = copy.test(stage, _MUTATED if mutant.is_function else None)
                    verdict, by = report.verdict, report.by
                    self._ranking.took(report.seconds)
                    if verdict != "green":
                        break
        finally:
            copy.restore(mutant.edits)
            copy.tidy()
        if verdict == "red":
            self._ranking.killed(mutant, by)
        if verdict == "green":
            verdict = "equivalent" if mutant.name in EQUIVALENT else "SURVIVED"
        elif mutant.name in EQUIVALENT:
            verdict = "NOT EQUIVALENT"
        with self._printing:
            outcome = self.outcomes[mutant.name] = Outcome(verdict=verdict, by=by, seconds=time.monotonic() - began)
            print(f"{outcome.verdict:<14} {outcome.seconds:5.0f} s  {mutant.name}", flush=True)
            reason = EQUIVALENT.get(mutant.name, "") if verdict == "equivalent" else by
            if reason:
                print(f"{'':<24}{reason}", flush=True)


def baseline(copy: Copy, ranking: Ranking, todo: list[Mutant], calls: Path | None, workers: int) -> str:
    """The test that is red although only blank lines were added to the files; empty if there is none."""
    edits = tuple(
        Edit(file=file, start=size, end=size, text="\n")
        for file in {mutant.file for mutant in todo}
        for size in [len(file.read_text(encoding="utf-8"))]
    )
    copy.apply(edits)
    try:
        widest = min(todo, key=lambda mutant: mutant.is_function)
        report = copy.test(ranking.files(widest), calls=calls, workers=workers)
    finally:
        copy.restore(edits)
        copy.tidy()
    ranking.took(report.seconds)
    return "" if report.verdict == "green" else f"{report.verdict}: {report.by}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="mutants whose names it matches")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--workers", type=int, default=2, help="mutants at once, each on a server of its own")
    parser.add_argument(
        "--first", type=int, default=120, help="how many of the likeliest tests to run before the suite"
    )
    parser.add_argument("--quick", action="store_true", help="run no others: survivors are only suspects then")
    parser.add_argument("--calls", type=Path, metavar="FILE", help="what tests/called.py wrote in a run of the suite")
    parser.add_argument("--no-baseline", action="store_true", help="do not see first that the suite is green")
    args = parser.parse_args()

    every = mutants()
    if unknown := EQUIVALENT.keys() - {mutant.name for mutant in every}:
        parser.error(f"said to be equivalent, but no such mutants: {', '.join(sorted(unknown))}")
    todo = [mutant for mutant in every if re.search(args.only, mutant.name)]
    if not todo:
        parser.error(f"no mutant's name matches {args.only}")
    if args.list:
        print(*(mutant.name for mutant in todo), sep="\n")
        return 0

    began = time.monotonic()
    ranking = Ranking(ROOT / "tests")
    with ExitStack() as stack:
        copies = [
            Copy(
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pycheckout-mutants-"))),
                stack.enter_context(
                    embedded_server(in_memory=True, max_connections=200, fsync=False, full_page_writes=False)
                ),
            )
            for _ in range(args.workers)
        ]
        if not args.no_baseline:
            written = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "calls.jsonl"
            if problem := baseline(copies[0], ranking, todo, None if args.calls else written, args.workers):
                print(f"The suite is not green without mutants. {problem}", file=sys.stderr)
                return 2
            args.calls = args.calls or written
        if args.calls:
            ranking.learn(args.calls)
        run = Run(todo, ranking, args.first, args.quick)
        threads = [threading.Thread(target=run.work, args=(copy,)) for copy in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    counts = Counter(outcome.verdict for outcome in run.outcomes.values())
    print(f"\n{len(todo)} mutants in {time.monotonic() - began:.0f} s: ", end="")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    for name, outcome in run.outcomes.items():
        if outcome.verdict not in ("red", "equivalent"):
            print(f"{outcome.verdict}: {name}")
    return 0 if set(counts) <= {"red", "equivalent"} and len(run.outcomes) == len(todo) else 1


if __name__ == "__main__":
    sys.exit(main())
