"""The command `pycheckout`, for those who operate a database. Needs the extra `cli`.

Exit codes: 0 done; 1 refused or failed, or the doctor found something; 2 wrong usage;
3 the audit found something; 4 the server was busy or away, or a drain ended early: run
it again.
"""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command, or say which extra it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show must not fail what is done by then
            stream.reconfigure(errors="replace")
    try:
        from ._commands import app
    except ModuleNotFoundError as exc:
        sys.exit(f"pycheckout: the command line needs {exc.name}: pip install 'pycheckout[cli]'")
    app()
