"""Deploy the functions of release 0.1.0.

The post-apply hook does so too, but yoyo runs the hook only when some migration was pending, and never again if it
failed. A release that changes a function brings a migration like this one, with the new hash.
"""

import runpy
from pathlib import Path

from yoyo import step

__depends__ = {"pycheckout_0024_views"}

FUNCTIONS_HASH = "ac719dd747a559bc296e797a532375951627060b1601da6b6cd2b826e72531fe"

_deployment = runpy.run_path(str(Path(__file__).parents[1] / "deploy.py"))


def _undeploy(conn):
    # Rolling this one back begins to take everything away. If a migration before it must refuse, then better now, while
    # the functions still work.
    conn.execute("select checkout_migration_check()")
    _deployment["undeploy"](conn)


step(_deployment["deploy"], _undeploy)
