"""`onelane incident`."""

import click

EXIT_DIFFERS = 1


@click.command()
@click.pass_context
def incident(context: click.Context) -> object:
    """Replay the incident, against a naive resolver and against Onelane.

    It starts servers of its own, and leaves nothing behind. docs/INCIDENT.md explains what happened.
    """
    from onelane.dev import incident as evening
    from onelane.dev.incident.report import format_incident

    replayed = evening.replay(lambda what: click.echo(f"onelane: {what}", err=True))
    click.echo(format_incident(replayed))
    for difference in replayed.differences:
        click.echo(f"onelane: {difference}", err=True)
    if replayed.differences:
        context.exit(EXIT_DIFFERS)
    return replayed
