"""The program that the commands are added to, how its help reads, and its exit codes."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .._release import release

FAILED, FOUND, AGAIN = 1, 3, 4
"""Exit codes beside 0, and 2, which is wrong usage."""

INSTALL, CHECKOUT, WATCH, CLEAR = "Install", "Check out", "Watch", "Clear away"
"""The panels of the help."""


class Command(TyperCommand):
    def get_params(self, ctx: Any) -> Any:
        return _plain(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:
        return _plain(super().get_params(ctx))


def _plain(params: Any) -> Any:
    """Without the types that newer releases of Typer show of a flag, which takes no value, and beside an argument."""
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None
        elif getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="The checkout of a multi-vendor marketplace, inside PostgreSQL: install it, look at it, use it.",
    epilog="Exit codes: 0 done; 1 refused or failed, or the doctor found something; 2 wrong usage; "
    "3 the audit found something; 4 the server was busy or away, or a drain ended early: run it again.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(release())
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the release and exit.")
    ] = False,
) -> None:
    pass


def command_group(name: str, panel: str, says: str) -> typer.Typer:
    group = typer.Typer(cls=Group, no_args_is_help=True, help=says)
    app.add_typer(group, name=name, rich_help_panel=panel)
    return group
