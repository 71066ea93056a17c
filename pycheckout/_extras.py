"""Say which extra brings what is missing: Python's own error names the package alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Imports of the packages of an extra. Raises ModuleNotFoundError, with the name of the package that is missing."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(f"{exc}: pip install 'pycheckout[{extra}]'", name=exc.name, path=exc.path) from exc
