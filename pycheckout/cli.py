"""The command `pycheckout`, for those who operate a database. Needs the extra `cli`.

Exit codes: 0 done; 1 refused or failed, or the doctor found something; 2 wrong usage;
3 the audit found something; 4 `execute` or `show` met a busy or absent server, and may
be run again.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say which extra it lacks."""
    try:
        from ._commands import app
    except ModuleNotFoundError as exc:
        sys.exit(f"pycheckout: the command line needs {exc.name}: pip install 'pycheckout[cli]'")
    app()
