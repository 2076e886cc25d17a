"""`onelane incident`."""

import click

from onelane.dev import incident as replays
from onelane.dev.incident.account import Incident
from onelane.dev.incident.report import format_incident

EXIT_DIFFERS = 1


@click.command()
@click.pass_context
def incident(context: click.Context) -> Incident:
    """Replay the incident, against a naive resolver and against Onelane.

    It starts servers of its own, and leaves nothing behind. docs/INCIDENT.md explains what happened.
    """
    replayed = replays.replay(lambda what: click.echo(f"onelane: {what}", err=True))
    click.echo(format_incident(replayed))
    for difference in replayed.differences:
        click.echo(f"onelane: {difference}", err=True)
    if replayed.differences:
        context.exit(EXIT_DIFFERS)
    return replayed
