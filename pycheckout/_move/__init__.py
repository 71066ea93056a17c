"""A market moved to another server while it sells: `pycheckout market move`.

Rows go by PostgreSQL's own logical replication, what holds them by pg_dump. What decides who sells is one row in each
schema, `checkout_market`, and the functions of `db/functions/market`, which change it; `course` is the order in which
they are called. Until the target is opened, all can be taken back (`abort`). After that the source says where the
market went, and follows for a while, so that the market can come back.
"""

from .course import STEPS, Move, Moved
from .look import MovePlan, Problem
from .sides import MoveDoubtful, MoveRefused, MoveUnfinished, Options, Place, Status

__all__ = [
    "STEPS",
    "Move",
    "MoveDoubtful",
    "MovePlan",
    "MoveRefused",
    "MoveUnfinished",
    "Moved",
    "Options",
    "Place",
    "Problem",
    "Status",
]
