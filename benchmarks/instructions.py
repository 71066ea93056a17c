"""Instructions that one checkout takes in the server: python -m benchmarks.instructions [--vendors N] [--lines N]

Counted by valgrind's callgrind in `postgres --single`, so that no other load, clock or cache is in the figure: the same
functions come to the same figure within a thousandth. It says nothing of locks, of the disk or of the network. Prints
thousands of instructions; with --profile, also which C functions they are in.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import ids, server
from benchmarks.loads import ADDRESS, Shape
from pycheckout._embedded import EmbeddedServer

WARM_UP, COUNTED = 20, 40
QUOTED = 1000  # in a smaller table other plans are cheaper
# What a SET calls and a checkout does not: callgrind writes its counts down before it, and begins anew.
_MARK = "ExecSetVariableStmt"


def count(*shapes: Shape, profile: bool = False) -> list[float]:
    """Thousands of instructions a checkout of each shape, parsing and planning of the call itself included."""
    with server.started() as embedded:
        databases = {f"bench_instructions_{number}": shape for number, shape in enumerate(shapes)}
        for name, shape in databases.items():
            server.quoted(embedded, name, shape, QUOTED)
        with server.admin(embedded) as conn:  # root's server may run from a copy
            programs = Path(conn.execute("select setting from pg_config where name = 'BINDIR'").fetchone()[0])
        _run(embedded, [programs / "pg_ctl", "-D", embedded.data, "-m", "fast", "-w", "stop"])
        return [_count(embedded, programs, name, profile=profile) for name in databases]


def _count(embedded: EmbeddedServer, programs: Path, database: str, *, profile: bool) -> float:
    """Check out in the place of the server, which is stopped, and count from the carts after the first ones."""
    carts = [_call(number) for number in range(WARM_UP + COUNTED)]
    script = [*carts[:WARM_UP], "set application_name = 'counted'", *carts[WARM_UP:], "reset application_name"]
    counts = embedded.data.parent / f"counts_{database}"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}", f"--dump-before={_MARK}"]
    single = [programs / "postgres", "--single", "-D", embedded.data, "-c", "fsync=off", database]
    _run(embedded, [*valgrind, *single], "\n".join(script) + "\n")
    counts = counts.with_name(f"{counts.name}.2")
    if profile:
        command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", counts]
        shown = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
        print(re.sub(r"\?\?\?:| \[[^]\n]*\]", "", shown))
    total = re.search(r"^(?:summary|totals): (\d+)", counts.read_text(encoding="utf-8"), re.M)
    assert total
    return int(total[1]) / COUNTED / 1000


def _run(embedded: EmbeddedServer, command: Sequence[str | Path], said: str | None = None) -> None:
    """Run a program as the server's user."""
    owner = embedded.data.stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "encoding": "utf-8"}
    subprocess.run(command, input=said, check=True, cwd=embedded.data.parent, **quiet, **as_owner)


def _call(number: int) -> str:
    address = json.dumps(ADDRESS)
    buyer, cart = ids.uuid(number, ids.BUYER), ids.uuid(number, ids.CART)
    return f"select checkout_execute('{buyer}', '{cart}', 'k{number}', '{address}', 'ach')"


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--vendors", type=int, default=3)
    options.add_argument("--lines", type=int, default=2, help="of each vendor")
    options.add_argument("--profile", action="store_true", help="print what callgrind_annotate says")
    args = options.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("This needs valgrind: apt-get install valgrind")
    [counted] = count(Shape(vendors=args.vendors, lines=args.lines), profile=args.profile)
    print(f"{counted:,.1f}")


if __name__ == "__main__":
    main()
