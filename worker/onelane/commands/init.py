"""`onelane init`: the folder of a new bot."""

from pathlib import Path
from typing import Final

import click

PROVIDERS: Final = ("whatsapp", "twilio", "slack", "telegram", "standard")


@click.command()
@click.argument("name")
@click.option(
    "--provider",
    "providers",
    type=click.Choice(PROVIDERS),
    multiple=True,
    help="Prepare a channel of this provider; may be repeated. `onelane run` needs none.",
)
@click.option("--llm", "with_model", is_flag=True, help="A bot that asks a language model, with a tool.")
def init(name: str, providers: tuple[str, ...], *, with_model: bool) -> None:
    """Write a new bot, with its tests, into the folder NAME.

    It asks nothing, and never overwrites anything.
    """
    from onelane.dev.init import create

    for path in create(name, Path.cwd() / name, providers, with_model=with_model):
        click.echo(f"wrote {path.relative_to(Path.cwd())}")
    click.echo(f"\n  cd {name}\n  pytest\n  onelane run {name}:handle")
