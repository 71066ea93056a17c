"""Deploy the functions of release 0.1.0.

The post-apply hook does so too, but yoyo runs the hook only when some migration was pending, and never again if it
failed. A release that changes a function brings a migration like this one, with the new hash.
"""

import runpy
from pathlib import Path

from yoyo import step

__depends__ = {"pycheckout_0032_inventory_baseline"}

FUNCTIONS_HASH = "6262e5d79545713685f2024caf046fa4a254a723f872710c2088d9f9f26e5473"

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
