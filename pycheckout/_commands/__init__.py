"""The commands of `pycheckout`; see `pycheckout.cli`.

A module is a topic: a group of commands, as `orders`, or those that its first line names. What they have in common is
in the modules with an underscore.
"""

from . import (  # noqa: F401, I001 - each adds its commands, and the help shows them in this order
    install,
    markets,
    signing_keys,
    checkout,
    orders,
    payments,
    stock,
    watch,
    relay,
    outbox,
    clear,
)
from ._app import app

__all__ = ["app"]
