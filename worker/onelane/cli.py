"""The command `onelane`. Each command parses, calls one function, and words the answer."""

import os
import signal
import sys
from io import TextIOWrapper

import click

from onelane.bootstrap import open_worker
from onelane.commands.channel import channel
from onelane.commands.dead import dead
from onelane.commands.doctor import doctor
from onelane.commands.incident import incident
from onelane.commands.init import init
from onelane.commands.lanes import lane, lanes
from onelane.commands.ops import ops
from onelane.commands.quarantine import quarantine
from onelane.commands.replies import replies
from onelane.commands.reply import reply
from onelane.commands.send import send
from onelane.commands.session import session
from onelane.commands.user import user
from onelane.config import Settings
from onelane.errors import EXIT_CONFIG, ConfigError, LanesDenied, OnelaneError, StoreDenied
from onelane.formats import database_of
from onelane.postgres import migrations
from onelane.processes import supervisor
from onelane.telemetry.log import configure

EXIT_FAILED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onelane")
@click.option("--as", "acts_as", metavar="NAME", help="Who acts, for the audit; default: the operating system's user.")
def onelane(acts_as: str | None) -> None:
    """One user, one session, one message at a time.

    Configuration comes from the environment; .env.example lists every variable.
    """


@onelane.command()
@click.argument("handler", required=False, metavar="[MODULE:FUNCTION]")
@click.option(
    "--use-environment", is_flag=True, help="Set Onelane up, without asking, where DATABASE_URL and REDIS_URL lead."
)
@click.option("--verbose", is_flag=True, help="Log everything, not a line for each turn and what is wrong.")
def run(handler: str | None, *, use_environment: bool, verbose: bool) -> None:
    """Run everything here: embedded servers, web and worker.

    MODULE:FUNCTION is the bot, in the working folder; without it HANDLER is.

    A server that DATABASE_URL or REDIS_URL names takes the place of an embedded one. One that Onelane has never used
    may be another project's: it is used after a yes only. What the environment has not, `.env` of the folder may have.
    """
    from onelane.dev.run.run import run as run_here

    sys.exit(run_here(handler, use_environment=use_environment, is_verbose=verbose))


@onelane.command()
def migrate() -> None:
    """Bring the database to this release. Safe to repeat and to run concurrently."""
    settings = _settings()
    click.echo(f"onelane: migrating {database_of(settings.database_url)}", err=True)
    applied = migrations.migrate(settings.database_url, pooler=settings.pg_pooler)
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("the database is current" if not applied else f"{len(applied)} files applied")


@onelane.command()
@click.option("--slots", type=click.IntRange(1, 10_000), help="Lanes worked on at once; default WORKER_SLOTS.")
@click.option("--burst", is_flag=True, help="End when no lane is due.")
@click.option("--unsupervised", is_flag=True, help="Do not start again after a crash.")
def worker(slots: int | None, burst: bool, unsupervised: bool) -> None:
    """Work lanes until SIGTERM or SIGINT."""
    settings = _settings()
    if slots is not None:
        settings = settings.model_copy(update={"worker_slots": slots})
    if not unsupervised:
        arguments = [f"--slots={settings.worker_slots}", *(["--burst"] if burst else [])]
        sys.exit(supervisor.supervise(*arguments, grace_s=settings.shutdown_grace_s))
    for signum in (signal.SIGTERM, signal.SIGINT):  # it may wait for servers, and has no lanes yet
        signal.signal(signum, lambda *_: os._exit(0))
    process = open_worker(settings)
    signal.signal(signal.SIGTERM, process.stop)
    signal.signal(signal.SIGINT, process.stop)
    process.probe_isolation()
    code = process.run(burst=burst)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of handlers that hang would keep the interpreter; everything of ours has ended.
    os._exit(code)


COMMANDS: tuple[click.Command, ...] = (
    *(channel, dead, doctor, incident, init, lane, lanes, ops, quarantine),
    *(replies, reply, send, session, user),
)
"""The commands that have a file of their own in `commands/`."""
for _command in COMMANDS:
    onelane.add_command(_command)


def main() -> None:
    """Run the command; what is wrong is said in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale without some letter is no reason to fail
    try:
        onelane()
    except (ConfigError, LanesDenied, StoreDenied) as error:
        click.echo(f"onelane: {error}", err=True)
        sys.exit(EXIT_CONFIG)
    except OnelaneError as error:
        click.echo(f"onelane: {error}", err=True)
        sys.exit(EXIT_FAILED)


def _settings() -> Settings:
    settings = Settings.from_environment()
    configure(settings.log_level, settings.log_format, is_development=settings.development)
    return settings
