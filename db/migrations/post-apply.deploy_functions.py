"""Deploy the functions again after any later migration was applied; see `db/deploy.py`."""

import runpy
from pathlib import Path

from yoyo import step

_deployment = runpy.run_path(str(Path(__file__).parents[1] / "deploy.py"))


def _deploy(conn):
    # The functions migration deploys first. `yoyo apply --revision` may have stopped before it, where the tables that a
    # deployment needs are not there yet, or the earlier checkout goes on.
    if conn.execute("select to_regclass('checkout_releases')").fetchone() == (None,):
        return
    if conn.execute("select exists (select from checkout_releases)").fetchone() == (True,):
        _deployment["deploy"](conn)


step(_deploy)
