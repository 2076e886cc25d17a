"""`onelane doctor`."""

import click

from onelane.commands.console import EXIT_FAILED, as_json, opened, print_json
from onelane.doctor.examination import CHECKS, Diagnosis, Examined, examine
from onelane.doctor.finding import Deployment, Health

COLOURS = {Health.OK: "green", Health.WARNING: "yellow", Health.FAILED: "red"}
WIDTH = max(len(check.name) for check in CHECKS)


@click.command()
@as_json
@click.pass_context
def doctor(context: click.Context, is_json: bool) -> None:
    """Check servers, schema, sessions, lanes and workers.

    Exit with 1 when a check fails. Safe in production: the checks read; what two of them write, they remove again.
    """
    with opened() as services:
        examined = []
        for one in examine(Deployment(services.settings, services.database, services.lanes)):
            examined.append(one)
            if not is_json:
                _print(one)
    diagnosis = Diagnosis(examined=tuple(examined))
    if is_json:
        print_json(diagnosis)
    if diagnosis.health is Health.FAILED:
        context.exit(EXIT_FAILED)


def _print(one: Examined) -> None:
    """Print one line for the check; below it each thing that is wrong, and what to do."""
    finding = one.finding
    health = click.style(finding.health.ljust(7), fg=COLOURS[finding.health])
    click.echo(f"{health}  {one.check.ljust(WIDTH)}  {finding.found}")
    below = [*finding.details, *([f"→ {finding.todo}"] if finding.todo else [])]
    for line in below:
        click.echo(f"{'':7}  {'':{WIDTH}}  {line}")
