"""Deploy the functions after any migration was applied; see `db/deploy.py`."""

import runpy
from pathlib import Path

from yoyo import step

step(runpy.run_path(str(Path(__file__).parents[1] / "deploy.py"))["deploy"])
