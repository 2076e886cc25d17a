"""`onelane ops`: make an entry of OPS_USERS."""

import json

import click

from onelane.operators import PASSWORD_MIN, hashed


@click.group()
def ops() -> None:
    """Look after who may open the operator's pages under /ops."""


@ops.command(name="hash")
@click.argument("name")
@click.option("--role", type=click.Choice(["look", "act"]), default="look", show_default=True, help="What NAME may do.")
def hash_(name: str, role: str) -> None:
    """Ask for NAME's password, and print the entry for OPS_USERS.

    Only the password's hash is in it.
    """
    password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if len(password) < PASSWORD_MIN:
        raise click.ClickException(f"a password has at least {PASSWORD_MIN} characters")
    click.echo(json.dumps({name: {"password": hashed(password), "role": role}}))
