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
from pathlib import Path
from typing import Any

from benchmarks import ids, server
from benchmarks.loads import ADDRESS, Shape
from pycheckout._embedded import EmbeddedServer

WARM_UP, COUNTED = 20, 40
QUOTED = 1000  # in a smaller table other plans are cheaper
# What a SET calls and a checkout does not: callgrind writes its counts down before it, and begins anew.
_MARK = "ExecSetVariableStmt"
_DATABASE = "bench_instructions"


def count(shape: Shape, *, profile: bool = False) -> float:
    """Thousands of instructions a checkout, parsing and planning of the call itself included."""
    with server.started() as embedded:
        server.quoted(embedded, _DATABASE, shape, QUOTED)
        counts = _run(embedded)
        if profile:
            command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", counts]
            shown = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
            print(re.sub(r"\?\?\?:| \[[^]\n]*\]", "", shown))
        total = re.search(r"^(?:summary|totals): (\d+)", counts.read_text(encoding="utf-8"), re.M)
        assert total
        return int(total[1]) / COUNTED / 1000


def _run(embedded: EmbeddedServer) -> Path:
    """Stop the server and check out in its place; the file with the counts of the carts after the first ones."""
    folder = embedded.data.parent
    with server.admin(embedded) as conn:  # root's server runs from a copy
        programs = Path(conn.execute("select setting from pg_config where name = 'BINDIR'").fetchone()[0])
    owner = embedded.data.stat()
    run: dict[str, Any] = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.geteuid() == 0:
        run |= {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    subprocess.run([programs / "pg_ctl", "-D", embedded.data, "-m", "fast", "-w", "stop"], **run)

    carts = [_call(number) for number in range(WARM_UP + COUNTED)]
    script = [*carts[:WARM_UP], "set application_name = 'counted'", *carts[WARM_UP:], "reset application_name"]
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'counts'}", f"--dump-before={_MARK}"]
    single = [programs / "postgres", "--single", "-D", embedded.data, "-c", "fsync=off", _DATABASE]
    subprocess.run([*valgrind, *single], input="\n".join(script) + "\n", encoding="utf-8", **run)
    return folder / "counts.2"


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
    print(f"{count(Shape(vendors=args.vendors, lines=args.lines), profile=args.profile):,.1f}")


if __name__ == "__main__":
    main()
