"""Deploy the functions of release 0.1.0.

The post-apply hook does so too, but yoyo runs the hook only when some migration was pending, and never again if it
failed. A release that changes a function brings a migration like this one, with the new hash.
"""

import runpy
from pathlib import Path

from yoyo import step

__depends__ = {"pycheckout_0039_inventory_baseline"}

FUNCTIONS_HASH = "0cfd5153add02ea0167e90eef98d8042285f197c2e0af9ca74ab5ce8e22c350e"

_deployment = runpy.run_path(str(Path(__file__).parents[1] / "deploy.py"))


def _undeploy(conn):
    # Rolling this one back begins to take everything away. If a migration before it must refuse, then better now, while
    # the functions still work.
    conn.execute("select checkout_migration_check()")
    _deployment["undeploy"](conn)


def _deploy(conn):
    # The newest of its kind does it: the functions may need what a migration between the two brings.
    if _deployment["functions_migration"]().name == Path(__file__).name:
        _deployment["deploy"](conn)


step(_deploy, _undeploy)
