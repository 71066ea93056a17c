"""Say in a sentence what is missing where psycopg finds no libpq: its own error is a list of attempts."""

import sys
from pathlib import Path

try:
    import psycopg  # noqa: F401
except ModuleNotFoundError:
    raise
except ImportError:
    _SENTENCE = (
        "pycheckout found no libpq, PostgreSQL's client library: "
        "pip install 'pycheckout[binary]', or install it (on Debian: apt-get install libpq5)"
    )
    if Path(sys.argv[0]).stem == "pycheckout":  # the command: a person reads it
        sys.exit(_SENTENCE)
    raise ImportError(_SENTENCE) from None
