"""A worker that is asked to end is gone in time, however often it is asked and whatever hangs just then."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded.child import Child
from tests.conftest import DEADLINE_S, Accept, eventually, slow_after
from tests.processes import renewer_of, the_child, worker_process
from tests.proxy import Proxy

GRACE_S = 1.0
ENDS_WITHIN_S = GRACE_S + 5
BUSY_S = 6
"""What a busy machine may add."""
SLOTS = 8


class Scene(NamedTuple):
    """A supervised worker whose slots are all in a handler, with its servers behind proxies."""

    supervisor: Child
    worker: int
    redis: Proxy
    postgres: Proxy


def frozen(pid: int) -> AbstractContextManager[None]:
    @contextmanager
    def stopped() -> Iterator[None]:
        os.kill(pid, signal.SIGSTOP)
        yield
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return stopped()


TROUBLES: dict[str, Callable[[Scene], AbstractContextManager[object]]] = {
    "the worker is frozen": lambda scene: frozen(scene.worker),
    "Redis is a black hole": lambda scene: scene.redis.black_hole(),
    "Postgres is a black hole": lambda scene: scene.postgres.black_hole(),
    "its helper is frozen": lambda scene: frozen(renewer_of(scene.worker)),
    "only its handlers hang": lambda _scene: ExitStack(),
}


@pytest.mark.parametrize("trouble", slow_after(0, TROUBLES))
def test_three_sigterms_end_a_worker_in_time_whatever_hangs(
    services: Services, settings: Settings, accept: Accept, tmp_path: Path, trouble: str
) -> None:
    runs, log = tmp_path / "runs", tmp_path / "worker.log"
    with Proxy(settings.redis_url) as redis, Proxy(settings.database_url) as postgres:
        ours = {"redis_url": redis.url, "database_url": postgres.url, "shutdown_grace_s": GRACE_S, "lock_ttl_s": 10}
        for nr in range(SLOTS):
            accept(f"user {nr}", f"wait {tmp_path / 'never'}")
        slow_to_give_up = settings.model_copy(update=ours)
        with worker_process(
            slow_to_give_up, f"--slots={SLOTS}", is_supervised=True, bot_log=runs, stall_limit_s=15, log=log
        ) as supervisor:
            eventually(lambda: runs.exists() and len(runs.read_text().splitlines()) == SLOTS)
            scene = Scene(supervisor, the_child(supervisor), redis, postgres)
            with TROUBLES[trouble](scene):
                asked_at = time.monotonic()
                for _ in range(3):
                    supervisor.send_signal(signal.SIGTERM)
                    os.kill(scene.worker, signal.SIGTERM)
                assert supervisor.wait(DEADLINE_S) == 0
                assert time.monotonic() - asked_at < ENDS_WITHIN_S + BUSY_S
                assert not Path(f"/proc/{scene.worker}").exists()
    # What a server keeps waiting is left out: the last resort is for processes that cannot end.
    assert ("worker_stopped" in log.read_text(encoding="utf-8")) == (trouble != "the worker is frozen")


@pytest.mark.slow
def test_a_sigterm_ends_a_worker_whose_handler_keeps_the_gil(
    services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    settings = settings.model_copy(update={"shutdown_grace_s": GRACE_S})
    accept("eve", "hog")
    with worker_process(settings, is_supervised=True, bot_log=runs, stall_limit_s=600) as supervisor:
        eventually(runs.exists)
        worker = the_child(supervisor)
        asked_at = time.monotonic()
        for _ in range(3):
            supervisor.send_signal(signal.SIGTERM)
            os.kill(worker, signal.SIGTERM)
        assert supervisor.wait(DEADLINE_S) == 0
        assert time.monotonic() - asked_at < ENDS_WITHIN_S + BUSY_S
