"""`onelane channel`: check the set-up of a channel, let it send again."""

import click

from onelane.commands.console import as_json, opened, print_json, who
from onelane.doctor.channel_setup import examine_channel
from onelane.doctor.finding import Deployment, Health
from onelane.inbox.unsigned import Unsigned

EXIT_WRONG = 1


@click.group()
def channel() -> None:
    """Check the set-up of a channel; let one send again that its provider refused.

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


@channel.command()
@click.argument("name")
@click.option("--called", metavar="URL", help="The address that the provider calls, from its console or its error log.")
@click.pass_context
def check(context: click.Context, name: str, called: str | None) -> None:
    """Explain what is wrong with the set-up of a channel: its address, its signature, its way to send.

    It shows why the newest webhook of a day was refused that was not signed as it must be, and the address that was
    verified. Give what the provider's console shows as --called.
    """
    with opened() as services:
        if name not in services.settings.channels:
            known = ", ".join(sorted(services.settings.channels))
            raise click.ClickException(f"no channel of that name is configured; configured: {known}")
        deployment = Deployment(services.settings, services.database, services.lanes)
        found = examine_channel(deployment, name, called, Unsigned(services.lanes.client).newest(name))
    for part, finding in found.items():
        click.echo(f"{finding.health:7}  {part:9}  {finding.found}")
        for line in (*finding.details, *([f"→ {finding.todo}"] if finding.todo else [])):
            click.echo(f"{'':20}{line}")
    if any(finding.health is Health.FAILED for finding in found.values()):
        context.exit(EXIT_WRONG)
