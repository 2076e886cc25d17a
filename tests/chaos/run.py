"""One run from the first process to the verdict: start, storm, heal, drain, stop, look, judge."""

import json
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import psycopg

from onelane.errors import EXIT_CONFIG
from tests.chaos.checker import checks, evidence, report
from tests.chaos.faults.schedule import Schedule, plan
from tests.chaos.faults.storm import Storm
from tests.chaos.history import Recorder
from tests.chaos.progress import Progress
from tests.chaos.service import leftovers, old_times, policies
from tests.chaos.service.stack import POOLED_NAMES, Folder, Stack
from tests.chaos.stalls import watch_load, watch_stalls

DRAINED_S = 60.0
DRAINED_PER_MESSAGE_S = 0.05
HEALED_S = 30.0
CLEAN_S = 90.0
"""The sweeper leaves a session a minute whose user had a waiting message; then ten rounds of the workers' duties."""
TICK_S = 0.1
REFUSING = "refusing-redis"
HEAL = "heal"
"""A file in the history: the provider writes nothing new once it exists."""
VERDICT = "report.json"
WAITING = "SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM outbox)"
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """What somebody asked for."""

    minutes: float
    seed: int
    faults: Collection[str]
    folder: Path | None = None
    is_wanted: bool = False
    """Whether the folder is kept whatever comes out."""
    rate: float | None = None
    mutant: str | None = None


def run(options: Options) -> int:
    """Do everything, and return the exit code: 0 if all promises were kept.

    What the run has written is kept if something was wrong, or if somebody asked for it.
    """
    folder = Folder((options.folder or Path(tempfile.mkdtemp(prefix="onelane-chaos-"))).absolute())
    folder.create()
    is_kept = True
    try:
        with _interruptible():
            code = _Run(options, folder).play()
        is_kept = options.is_wanted or code != 0
    except KeyboardInterrupt:
        is_kept, code = options.is_wanted, EXIT_INTERRUPTED
    finally:
        if is_kept:
            click.echo(f"kept in {folder.path}", err=True)
        else:
            shutil.rmtree(folder.path)
    return code


class _Run:
    def __init__(self, options: Options, folder: Folder) -> None:
        self._options = options
        self._folder = folder
        self._schedule: Schedule = plan(options.seed, options.minutes * 60, options.faults)
        self._recorder = Recorder("harness", folder.history)
        self._progress = Progress(folder.history)

    def play(self) -> int:
        options = self._options
        with Stack(self._folder, options.seed, self._schedule.lasts_s, options.rate, options.mutant) as stack:
            self._progress.say(
                f"seed {self._options.seed}, {len(self._schedule.faults)} faults, in {self._folder.path}"
            )
            stack.start()
            watch_stalls(self._recorder)
            watch_load(self._recorder)
            self._recorder.note("setup", **self._setup(), pooled=POOLED_NAMES if stack.pooler else ())
            old_times.write(stack.postgres.url, self._recorder)
            self._storm(stack)
            self._heal(stack)
            self._drain(stack)
            self._stop(stack)
            return self._judge(stack)

    def _setup(self) -> dict[str, object]:
        planned = Counter(fault.name for fault in self._schedule.faults)
        return {**policies.setup(), "seed": self._options.seed, "mutant": self._options.mutant, "planned": planned}

    def _storm(self, stack: Stack) -> None:
        self._phase("storm")
        stack.provider.start()
        with Storm(stack, self._schedule, self._recorder, self._progress) as storm:
            storm.rage()

    def _heal(self, stack: Stack) -> None:
        """Have everything running again; from now on the provider only finishes."""
        self._phase("heal")
        stack.await_ready(HEALED_S)
        (self._folder.history / HEAL).touch()

    def _drain(self, stack: Stack) -> None:
        """Wait until the provider has everything it waits for; not for ever, since a bug may keep it waiting."""
        self._phase("drain")
        deadline = time.monotonic() + DRAINED_S + DRAINED_PER_MESSAGE_S * _waiting(stack)
        while not stack.provider.is_done and not stack.provider.problems and time.monotonic() < deadline:
            stack.tend()
            self._progress.show("drain", [])
            time.sleep(TICK_S)
        if not stack.provider.is_done:
            self._progress.say(f"not drained: see {self._folder.logs}")
        deadline = time.monotonic() + CLEAN_S
        while not self._is_clean(stack) and time.monotonic() < deadline:
            time.sleep(TICK_S)

    def _is_clean(self, stack: Stack) -> bool:
        return leftovers.is_clean(self._folder, stack.postgres.url, stack.redis.url)

    def _stop(self, stack: Stack) -> None:
        self._phase("settled")
        problems = [one for one in stack.stop_service() if not self._is_meant(one)]
        found = leftovers.collect(self._folder, stack.postgres.url, stack.redis.url, problems)
        self._recorder.note("leftovers", **found)

    def _is_meant(self, problem: str) -> bool:
        """Tell whether a process ended as it should, as one that starts while Redis forbids what it needs."""
        return REFUSING in self._options.faults and problem.endswith(f"ended with {EXIT_CONFIG}")

    def _judge(self, stack: Stack) -> int:
        seen = evidence.load(self._folder.history, self._folder.received, stack.postgres.url)
        violations = checks.all_violations(seen)
        click.echo(report.render(seen, violations))
        verdict = json.dumps(report.as_json(seen, violations), indent=2, default=str)
        (self._folder.path / VERDICT).write_text(verdict + "\n")
        return 1 if violations else 0

    def _phase(self, name: str) -> None:
        self._recorder.note("phase", name=name)
        self._progress.say(name)


def _waiting(stack: Stack) -> int:
    with psycopg.connect(stack.postgres.url) as connection:
        return connection.execute(WAITING).fetchall()[0][0]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first request to end into a KeyboardInterrupt, and let no further one disturb the clearing up."""
    before = {signum: signal.getsignal(signum) for signum in END_SIGNALS}

    def interrupt(*_: object) -> None:
        for signum in END_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        raise KeyboardInterrupt

    for signum in END_SIGNALS:
        signal.signal(signum, interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
