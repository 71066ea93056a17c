"""Where a log record says that it comes from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

# Frames of these lie between a call and whoever made it: a task's coroutine is stepped by the event loop.
_OURS = (f"{Path(__file__).parent}{os.sep}", f"{Path(asyncio.__file__).parent}{os.sep}", contextlib.__file__)


def caller() -> tuple[str, int, str]:
    """The file, line and function that called this package: the nearest frame that is neither its nor an event loop's.

    Of a coroutine that was made a task, that is whoever runs the loop: who made the task is no longer known.
    """
    nearest = frame = sys._getframe(1)
    while nearest.f_code.co_filename.startswith(_OURS):
        if nearest.f_back is None:
            nearest = frame
            break
        nearest = nearest.f_back
    return nearest.f_code.co_filename, nearest.f_lineno, nearest.f_code.co_name


class Unheard(logging.NullHandler):
    """Silent, where the host configures no logging, but for errors: what no other handler takes goes to standard error,
    as logging does it for a logger without a handler."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def handle(self, record: logging.LogRecord) -> bool:
        if logging.lastResort is not None and not _is_taken(record):
            logging.lastResort.handle(record)
        return True


def _is_taken(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        for handler in logger.handlers:
            if record.levelno >= handler.level and not isinstance(handler, logging.NullHandler):
                return True
        logger = logger.parent if logger.propagate else None
    return False
