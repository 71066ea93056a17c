"""Deploy the functions of a release.

The post-apply hook does so too, but yoyo runs the hook only when some migration was pending, and never again if it
failed. A release that changes a function brings a migration like this one, with its number and the new hash, as the
last of its migrations: `pycheckout rollback --to` goes back to there.
"""

import runpy
from pathlib import Path

from yoyo import step

__depends__ = {"pycheckout_0040_functions"}

RELEASE = "0.1.1"
FUNCTIONS_HASH = "e2eb75b76ab82a24fa162a288fe536491de86c6198d52c3d381319b3f0545c83"

_deployment = runpy.run_path(str(Path(__file__).parents[1] / "deploy.py"))

step(*_deployment["functions_steps"](__file__))
