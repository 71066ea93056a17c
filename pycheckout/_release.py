"""Where the package's `db/` is: its migrations, its functions, and its version."""

from __future__ import annotations

from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ._errors import MigrationError

_PACKAGE = Path(__file__).resolve().parent


@cache
def db_folder() -> Path:
    """`db/`: inside the package in a wheel, beside it in a checkout or an editable install."""
    for folder in (_PACKAGE / "db", _PACKAGE.parent / "db"):
        if (folder / "deploy.py").is_file():
            return folder
    raise MigrationError(
        f"no migrations: neither {_PACKAGE / 'db'} nor {_PACKAGE.parent / 'db'} holds them",
        hint="The package is not installed whole; install it again.",
    )


@cache
def deployment() -> ModuleType:
    """`db/deploy.py`. It stands alone and is loaded by path, as the migrations do it."""
    spec = spec_from_file_location("_pycheckout_deploy", db_folder() / "deploy.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def release() -> str:
    """The version of this package."""
    return str(deployment().RELEASE)
