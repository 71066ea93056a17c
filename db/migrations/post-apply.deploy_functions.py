"""Deploy the functions after any migration was applied; see `db/deploy.py`."""

import runpy
from pathlib import Path

from yoyo import step

_deployment = runpy.run_path(str(Path(__file__).parents[1] / "deploy.py"))


def _deploy(conn):
    # `yoyo apply --revision` may have stopped before the tables that a deployment needs.
    if conn.execute("select to_regclass('checkout_roles')").fetchone() != (None,):
        _deployment["deploy"](conn)


step(_deploy)
