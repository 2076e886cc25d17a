"""`onelane doctor`."""

import click

from onelane.commands.console import EXIT_FAILED, as_json, opened, print_json, who
from onelane.doctor.examination import BOTS, CHECKS, PROVIDERS, WITHOUT_BOTS, Diagnosis, Examined, examine
from onelane.doctor.finding import Deployment, Health
from onelane.operations.adoption import Adoption

COLOURS = {Health.OK: "green", Health.WARNING: "yellow", Health.FAILED: "red"}
WIDTH = max(len(check.name) for check in CHECKS)


@click.command()
@as_json
@click.option("--providers", is_flag=True, help="Also ask each channel's provider whether it takes the token.")
@click.option("--adopt-redis", is_flag=True, help="Make the lanes in Redis this database's, and check nothing.")
@click.option("--force", is_flag=True, help="Adopt without asking, also while another deployment's workers are alive.")
@click.pass_context
def doctor(context: click.Context, is_json: bool, providers: bool, adopt_redis: bool, force: bool) -> None:
    """Check servers, schema, sessions, lanes and workers.

    Exit with 1 when a check fails. Safe in production: the checks read; what two of them write, they remove again.

    --providers makes one harmless call for each channel that has a token, and connects to where each sends.

    --adopt-redis is for a database that took the place of the one whose lanes are in Redis.
    """
    if adopt_redis:
        _adopt(force=force)
        return
    with opened(on_any_redis=True) as services:
        examined = []
        for one in examine(
            Deployment(services.settings, services.database, services.lanes),
            (*WITHOUT_BOTS, PROVIDERS, BOTS) if providers else CHECKS,
        ):
            examined.append(one)
            if not is_json:
                _print(one)
    diagnosis = Diagnosis(examined=tuple(examined))
    if is_json:
        print_json(diagnosis)
    if diagnosis.health is Health.FAILED:
        context.exit(EXIT_FAILED)


def _adopt(*, force: bool) -> None:
    with opened(on_any_redis=True) as services:
        adoption = Adoption(services.lanes)
        if not adoption.is_needed:
            click.echo("the lanes in this Redis are this database's already")
            return
        workers = adoption.workers()
        if workers and not force:
            raise click.ClickException(
                f"another deployment works in this Redis: {', '.join(workers)}. Set REDIS_PREFIX, or end these workers "
                "and wait 15 s; --force adopts it all the same"
            )
        if not force:
            click.echo("This Redis has the lanes of another database. Its processes will refuse to use it from now on.")
            click.confirm("Are the lanes to be this database's", abort=True)
        adoption.adopt(services.database, by=who())
    click.echo("adopted; the workers make a lane for every user who waits within seconds")


def _print(one: Examined) -> None:
    """Print one line for the check; below it each thing that is wrong, and what to do."""
    finding = one.finding
    health = click.style(finding.health.ljust(7), fg=COLOURS[finding.health])
    click.echo(f"{health}  {one.check.ljust(WIDTH)}  {finding.found}")
    below = [*finding.details, *([f"→ {finding.todo}"] if finding.todo else [])]
    for line in below:
        click.echo(f"{'':7}  {'':{WIDTH}}  {line}")
