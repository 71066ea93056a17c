"""`pycheckout signing-key ...`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ._app import INSTALL, command_group
from ._statements import Statement, calls

keys = command_group("signing-key", INSTALL, "Keys that sign ad tokens.")

Kid = Annotated[str, typer.Argument(metavar="KID", help="The name of a key, as the header of a token has it.")]


@calls(keys, "put", everywhere=True, said="key {kid} is active")
def _put_key(
    kid: Kid,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="A file that holds the secret, byte for byte.",
        ),
    ] = None,
    secret_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="A variable of the environment that holds it.")
    ] = None,
    accepts_unnamed: Annotated[
        bool, typer.Option("--accepts-unnamed", help="Let it verify tokens whose header names no key.")
    ] = False,
) -> Statement:
    """Add a key, or make a retired one active again."""
    if (secret_file is None) == (secret_env is None):
        raise typer.BadParameter("give --secret-file or --secret-env, and not both")
    if secret_file is not None:
        secret = secret_file.read_bytes()
    elif secret_env is not None and secret_env in os.environ:
        secret = os.environb[secret_env.encode()]
    else:
        raise typer.BadParameter(f"the environment has no {secret_env}")
    query = "select json_build_object('kid', %s::text, 'active', true) from ad_signing_key_put(%s, %s, %s)"
    return query, (kid, kid, secret, accepts_unnamed)


@calls(keys, "retire", everywhere=True, said="key {kid} is retired")
def _retire_key(kid: Kid) -> Statement:
    """Stop believing tokens that a key signed."""
    return "select json_build_object('kid', %s::text, 'active', false) from ad_signing_key_retire(%s)", (kid, kid)


@calls(keys, "list", everywhere=True)
def _list_keys() -> Statement:
    """Show the names of the keys, and which are active. Never a secret."""
    fields = "'kid', kid, 'active', active, 'accepts_unnamed', accepts_unnamed, 'created_at', created_at"
    return f"select json_build_object({fields}, 'retired_at', retired_at) from ad_signing_keys order by kid", ()
