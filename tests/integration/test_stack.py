"""What starts servers and processes for everybody: it notices deaths, passes logs on, and leaves nothing behind."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.dev.embedded.child import command_line, descendants
from onelane.dev.run import reloading
from onelane.dev.run.data_folder import VARIABLE, DataFolder
from onelane.dev.run.reloading import Reloader
from onelane.dev.stack import POLL_S, Stack
from onelane.errors import OnelaneError
from tests.conftest import DEADLINE_S, ROOT, eventually

FAIL = "print('the reason', flush=True); raise SystemExit(3)"
STAY = "import time; time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); " + STAY
LOGS = (
    "from onelane.telemetry.log import configure_by_environment, event; configure_by_environment(); "
    f"event('worker_started', worker='w', kinds='in,out', slots=1); {STAY}"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STAY!r}])"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def never() -> bool:
    return False


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, {}) as stack:
        yield stack


def test_who_waits_notices_a_death_and_gets_the_end_of_the_log(stack: Stack) -> None:
    stack.start("stays", python(STAY))
    stack.start("fails", python(FAIL))
    with pytest.raises(OnelaneError, match=r"fails ended with exit code 3\nfails: the reason"):
        stack.wait_for(never, "the impossible", DEADLINE_S)
    with pytest.raises(OnelaneError, match="fails ended"):
        stack.watch()


def test_a_process_that_may_end_or_that_was_stopped_is_no_death(stack: Stack) -> None:
    ends = stack.start("ends", python(FAIL), may_end=True)
    stays = stack.start("stays", python(STAY))
    stack.wait_for(lambda: not ends.is_running, "the end", DEADLINE_S)
    stays.stop(DEADLINE_S)
    with pytest.raises(OnelaneError, match="the impossible did not happen within 0 s"):
        stack.wait_for(never, "the impossible", 3 * POLL_S)


def test_a_server_that_dies_is_noticed_and_one_that_was_stopped_is_none(stack: Stack, tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    stack.start_servers(server)
    assert stack.environment == {"REDIS_URL": server.url}
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(OnelaneError, match="the embedded Redis died"):
        stack.wait_for(never, "the impossible", DEADLINE_S)
    server.stop()
    assert stack.wait_for(lambda: "yes", "the possible", DEADLINE_S) == "yes"


def test_lines_of_the_logs_are_passed_on_once_and_a_death_quotes_none(tmp_path: Path) -> None:
    lines: list[str] = []
    with Stack(tmp_path, {}, echo=lines.append) as stack:
        stack.start("fails", python(FAIL))
        with pytest.raises(OnelaneError, match=r"^fails ended with exit code 3; the log above says why$"):
            stack.wait_for(never, "the impossible", DEADLINE_S)
    assert lines == ["fails   | the reason"]


def test_who_waits_can_be_interrupted(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with Stack(tmp_path, {}, on_tick=interrupt) as stack, pytest.raises(KeyboardInterrupt):
        stack.watch()


def test_processes_get_the_environment_they_are_given_and_no_other(stack: Stack) -> None:
    child = stack.start("shows", python("import os; print(*sorted(os.environ))"), {"ALSO": 1}, may_end=True)
    stack.wait_for(lambda: not child.is_running, "the end", DEADLINE_S)
    assert set(child.last_lines().split()) <= {"ALSO", "LC_CTYPE"}  # Python itself may set the second


def test_leaving_the_block_ends_a_whole_family_also_one_that_ignores_requests(tmp_path: Path) -> None:
    with Stack(tmp_path, {}) as stack:
        parent, stubborn = stack.start("parent", python(PARENT)), stack.start("stubborn", python(STUBBORN))
        [grandchild] = eventually(lambda: descendants(parent.pid))
        eventually(lambda: "deaf" in stubborn.last_lines())
        family = [parent.pid, grandchild, stubborn.pid]
    assert not any(map(command_line, family))
    assert not stack.has_processes


def test_a_process_that_the_system_does_not_start_is_named_with_the_reason(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(OnelaneError, match=r"^worker cannot be started: No such file or directory$"):
        stack.start("worker", python(STAY), cwd=tmp_path / "gone")


@pytest.mark.parametrize("level", ["WARNING", "error"])
def test_a_changed_bot_takes_over_whatever_the_log_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setattr(reloading, "WORKER", python(LOGS))
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with Stack(tmp_path, {"LOG_LEVEL": level}) as stack:
        old = stack.start("worker", python(STAY))
        reloader = Reloader(stack, old, "mybot:handle", tmp_path / "problem.txt", said.append)

        def takes_over() -> bool:
            reloader.look()
            return "onelane: the new bot answers" in said

        reloader._changed.set()
        eventually(takes_over)
        eventually(lambda: old.has_died)


def test_what_is_set_for_another_project_reaches_no_process(tmp_path: Path) -> None:
    theirs = {"GUNICORN_CMD_ARGS": "--workers 9", "RQ_KEY_PREFIX": "theirs", "PGHOSTADDR": "127.0.0.9", "PG_POOLER": ""}
    with Stack(tmp_path, theirs) as stack:
        assert set(stack.environment) == {"PGHOSTADDR", "PG_POOLER"}, "they complete a DATABASE_URL of one's own"
        server = EmbeddedPostgres(tmp_path / "postgres")
        assert server.known_in(stack.environment) == {"PG_POOLER": "", "DATABASE_URL": server.url}


def test_a_command_uses_the_run_of_its_folder_instead_of_what_that_run_has_declined(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    address = {"DATABASE_URL": "postgresql:///embedded", "REDIS_URL": "redis://embedded"}
    folder.publish(address, [("REDIS_URL", "redis://:secret@theirs")])
    assert "secret" not in (tmp_path / "run.json").read_text()
    assert folder.published() == address
    assert folder.instead({}) == address
    own = {"DATABASE_URL": "postgresql:///own", "REDIS_URL": "redis://:secret@theirs"}
    assert folder.instead(own) == {"REDIS_URL": "redis://embedded"}
    assert folder.instead({"REDIS_URL": "redis://another"}) == {}


@pytest.mark.parametrize("below", [".", "docs", "worker/onelane"])
def test_the_data_folder_of_our_checkout_is_the_same_from_all_its_folders(
    below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(ROOT / below)
    assert DataFolder.of_environment().path == ROOT / ".onelane"


def test_elsewhere_the_data_folder_lies_in_the_working_folder_or_where_one_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert DataFolder.of_environment().path == tmp_path / ".onelane"
    monkeypatch.setenv(VARIABLE, "there")
    assert DataFolder.of_environment().path == tmp_path / "there"
