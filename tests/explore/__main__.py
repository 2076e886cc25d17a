"""`python -m tests.explore`: look at all states of some settings, show that it sees, and walk beside real servers."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import psycopg
import redis
from psycopg.rows import namedtuple_row

from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.lanes.scripts import connect
from onelane.postgres.migrations import migrate
from tests.explore.beside import walk
from tests.explore.bugs import PLANTED, planted
from tests.explore.search import Search, lines
from tests.explore.settings import LONG, WALKED, Setting

TOLD_EVERY: Final = 500
"""Walks."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", metavar="WORD", help="Look at the settings alone whose names have this word.")
@click.option("--walks", type=click.IntRange(0), default=0, help="Beside real servers.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first walk.")
def explore(only: str | None, walks: int, seed: int) -> None:
    """Look at every interleaving of two workers; exit with 1 where a promise is broken or a bug not seen."""
    are_kept = all([_look(_named(only)), _plant()])
    if walks:
        _walk(walks, seed)
    sys.exit(not are_kept)


def _named(only: str | None) -> Mapping[str, Setting]:
    return LONG if only is None else {name: setting for name, setting in LONG.items() if only in name}


def _look(settings: Mapping[str, Setting]) -> bool:
    total, are_kept = 0, True
    for name, setting in settings.items():
        explored = Search(setting).run()
        total += explored.states
        _say(f"{name}: {explored.summary()}")
        if explored.found:
            are_kept = False
            _say(*lines(explored.found))
    _say(f"{total:,} states in all")
    return are_kept


def _plant() -> bool:
    are_seen = True
    for name, bug in PLANTED.items():
        with planted(bug.changes):
            explored = Search(bug.setting).run()
        found = explored.found
        are_seen &= found is not None and found.promise == bug.promise
        _say("", f"planted: {name}: {explored.summary()}", *(lines(found) if found else ["not found"]))
    return are_seen


def _walk(walks: int, seed: int) -> None:
    steps, settings = 0, list(WALKED.values())
    with _servers() as (connection, client):
        for done, nr in enumerate(range(seed, seed + walks)):
            if done and done % TOLD_EVERY == 0:
                _say(f"{done:,} walks, {steps:,} steps")
            steps += len(walk(connection, client, settings[nr % len(settings)], nr))
    _say("", f"{walks:,} walks beside real servers, {steps:,} steps: the same")


def _say(*texts: str) -> None:
    click.echo("\n".join(texts))


@contextmanager
def _servers() -> Iterator[tuple[psycopg.Connection[Any], redis.Redis]]:
    with (
        TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder, "postgres"), {"fsync": "off"}) as postgres,
        EmbeddedRedis(Path(folder, "redis")) as server,
    ):
        migrate(postgres.url)
        client = connect(server.url, timeout_s=5, wait_s=5, connections_max=2)
        with psycopg.connect(postgres.url, autocommit=True, row_factory=namedtuple_row) as connection:
            yield connection, client
        client.close()


if __name__ == "__main__":
    explore(prog_name="python -m tests.explore")
