"""`onelane channel`: let a channel send again."""

import click

from onelane.commands.console import as_json, opened, print_json, who


@click.group()
def channel() -> None:
    """Let a channel send again that its provider refused.

    `onelane replies` names the channels that send nothing; each is tried with one reply every half a minute.
    """


@channel.command(name="open")
@click.argument("name")
@as_json
def open_(name: str, is_json: bool) -> None:
    """Let all replies of a channel be sent now, once its token or its account is mended."""
    with opened() as services:
        act = services.reply_acts.open_channel(name, by=who())
        known = sorted(services.settings.channels)
    if not act.did and name not in known:
        raise click.ClickException(f"no channel of that name is held or configured; configured: {', '.join(known)}")
    if is_json:
        print_json({"channel": name, **act.model_dump()})
    else:
        click.echo(f"channel {name} {'sends again' if act.did else 'was not held'}")
