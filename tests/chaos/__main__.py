"""The commands of the harness: `python -m tests.chaos run`, and `mutants`, which shows that it can fail."""

import sys
from importlib import import_module
from pathlib import Path
from random import SystemRandom
from typing import Any

import click

from tests.chaos.faults.catalogue import FAULTS, possible
from tests.chaos.run import Options, run

SEED_MAX = 999_999


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def chaos() -> None:
    """Break everything that the service stands on, at random, and check its promises afterwards."""


@chaos.command("run")
@click.option("--minutes", type=click.FloatRange(0.05, 24 * 60), default=3.0, show_default=True, help="Of traffic.")
@click.option("--seed", type=int, help="Makes the same traffic and the same faults; drawn if not given.")
@click.option("--only", metavar="NAME[,NAME]", help=f"Only these faults, of: {', '.join(FAULTS)}.")
@click.option("--no-faults", is_flag=True, help="One long calm.")
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder for what the run writes.")
@click.option("--keep", is_flag=True, help="Keep that folder also when nothing is wrong.")
@click.option("--rate", type=click.FloatRange(1, 1_000), help="Messages a second, on average.")
@click.option("--mutant", metavar="NAME", help="Plant a bug first.")
def run_command(only: str | None, *, no_faults: bool, keep: bool, seed: int | None, **given: Any) -> None:
    """Make one run; exit with 1 and the first broken promise if there is one."""
    seed = SystemRandom().randint(1, SEED_MAX) if seed is None else seed
    names = () if no_faults else _names(only) if only else possible()
    sys.exit(run(Options(seed=seed, faults=names, is_wanted=keep or given["folder"] is not None, **given)))


@chaos.command()
@click.argument("names", nargs=-1)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first run of each.")
def mutants(names: tuple[str, ...], seed: int) -> None:
    """Plant one bug after the other, all or those of NAMES, and see that each is found with two of three seeds."""
    sys.exit(import_module("tests.chaos.mutants").main(names, seed))


def _names(only: str) -> tuple[str, ...]:
    names = tuple(only.split(","))
    if unknown := [name for name in names if name not in FAULTS]:
        raise click.BadParameter(f"no fault {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    return names


if __name__ == "__main__":
    chaos(prog_name="python -m tests.chaos")
