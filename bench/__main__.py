"""`python -m bench`: measure claims, print their tables, write JSON and plots."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import click

from bench import machine, plots, publishing, result
from bench.checkout import ROOT
from bench.claims import CLAIMS, RUNS
from bench.errors import BenchError
from bench.plan import Plan, to_terminal
from bench.result import Result
from bench.stack import remove_leftovers
from bench.table import in_terminal
from onelane.config import Settings
from onelane.errors import OnelaneError
from onelane.sources import without_channels

OUT = ROOT / ".onelane" / "bench"
PUBLISHED_RUNS_MIN = 3
EXIT_FAILED = 1
EXIT_STOPPED = 143


OPTIONS = (
    click.option(
        "--runs",
        type=click.IntRange(1, 25),
        default=3,
        show_default=True,
        help="How many rounds; results are their medians.",
    ),
    click.option("--quick", is_flag=True, help="Small sizes, to see that everything works."),
    click.option("--peer", "peers", multiple=True, help="Measure only peers whose names begin so; may be repeated."),
    click.option(
        "--against",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="A checkout of an earlier version, installed: the whole way is measured beside it.",
    ),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what a Plan is made of."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("claims", nargs=-1, type=click.Choice(list(CLAIMS)), metavar="[CLAIM]...")
@_with_options
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=OUT, help="The folder for JSON and plots."
)
@click.option(
    "--publish", is_flag=True, help="Write into docs/benchmarks instead, and update the tables of docs/BENCHMARKS.md."
)
@click.option("--redraw", is_flag=True, help="Measure nothing: make tables and plots from the JSON of earlier runs.")
def main(claims: tuple[str, ...], out: Path, publish: bool, redraw: bool, *, quick: bool, **plan: Any) -> None:
    """Measure Onelane beside its peers, in the same run, on this machine.

    Claims: whole_way, drain, skewed, live, webhook, fairness, slow, async_slots, lanes, memory, cost, idle, growth,
    flushall, takeover, replies, storm; all of them when none is named. Runs that leave rows end with a check of them:
    nothing lost, doubled or out of order. Results of claims that are not measured again stay. Everything runs on
    servers of its own, which leave nothing behind. A claim that fails or misses a floor makes the command fail, once
    all are measured.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
    _forget_settings()
    if publish and not redraw:
        _refuse_partial(claims or tuple(CLAIMS), Plan(is_quick=quick, **plan))
    if (kind := machine.filesystem(Path(gettempdir()))) in machine.IN_MEMORY:
        to_terminal(f"{gettempdir()} is in memory ({kind}): a flush to disk costs nothing there; set TMPDIR")
    remove_leftovers()
    folder = publishing.PUBLISHED if publish else out
    results, broken = result.load(folder), list[str]()
    began = time.monotonic()
    for claim in results if redraw else claims or CLAIMS:
        if redraw:
            _show(results[claim], folder)
        else:
            broken += _measure(claim, Plan(is_quick=quick, **plan), results, folder, publish=publish)
        if publish:
            publishing.publish(results)
    to_terminal(f"{time.monotonic() - began:.0f} s; JSON and plots are in {folder}")
    if broken:
        raise BenchError("; ".join(broken))


def _refuse_partial(claims: Sequence[str], plan: Plan) -> None:
    """Raise UsageError for what must not stand in the document."""
    too_few = plan.runs < PUBLISHED_RUNS_MIN and not RUNS.keys() >= set(claims)
    if plan.is_quick or plan.peers or too_few:
        raise click.UsageError("only full sizes, all peers and three rounds or more are published")


def _measure(claim: str, plan: Plan, results: dict[str, Result], folder: Path, *, publish: bool) -> list[str]:
    """Measure a claim, and add it to `results` and to the folder at once; return why the command fails, if it does."""
    to_terminal(f"{claim}:")
    try:
        one = CLAIMS[claim](plan)
        if not (publish and one.failed):  # nothing partial is published
            results[claim] = one
            result.save(folder, results)
            _show(one, folder)
    except Exception:  # noqa: BLE001 - the other claims are measured all the same
        traceback.print_exc()
        return [f"{claim} failed"]
    missed = [goal.text for goal in one.goals if goal.is_missed_floor and not plan.is_quick]
    return [*(f"{claim}: {name} failed" for name in one.failed), *(f"{claim} missed {text}" for text in missed)]


def _show(one: Result, folder: Path) -> None:
    click.echo(in_terminal(one))
    plots.draw(one, folder)


def _forget_settings() -> None:
    """Remove from the environment the settings of other services than those that are measured."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name == "GUNICORN_CMD_ARGS":
            del os.environ[name]
    for name in os.environ.keys() - without_channels(os.environ).keys():
        del os.environ[name]


if __name__ == "__main__":
    try:
        main()
    except (BenchError, OnelaneError) as error:
        to_terminal(f"bench: {error}")
        sys.exit(EXIT_FAILED)
