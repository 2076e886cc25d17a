"""`onelane run` starts everything, says what is wrong, and leaves nothing behind, however it ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import psycopg
import pytest
from redis import Redis

from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.dev.embedded.child import children_of, command_line, descendants, wait_until
from onelane.dev.embedded.redis import free_port
from onelane.dev.run.data_folder import VARIABLE, DataFolder
from onelane.dev.stack import PYTHON
from onelane.errors import EXIT_CONFIG
from onelane.model import JsonObject

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the processes are counted in /proc")

START_S = 120
STOP_S = 30
COMMAND = (*PYTHON, "onelane", "run")
BANNER = "Onelane runs."


class Run:
    """One `onelane run` in a folder of its own, as a terminal sees it."""

    def __init__(
        self, folder: Path, command: Sequence[str] = COMMAND, *, terminal: int | None = None, **env: str
    ) -> None:
        self.data = DataFolder(folder / "data")
        self.port = int(env.get("PORT") or free_port())
        self._output = folder / f"output-{free_port()}"
        settings = {name.upper() for name in Settings.model_fields}
        inherited = {name: value for name, value in os.environ.items() if name not in settings}
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                command,
                stdin=terminal if terminal is not None else subprocess.DEVNULL,
                stdout=output,
                stderr=output if terminal is None else terminal,
                cwd=folder,
                env={
                    **inherited,
                    "ONELANE_DATA": str(self.data.path),
                    "PORT": str(self.port),
                    **env,
                },
            )
        self.family: list[int] = []
        """Whom the run had started when its banner appeared."""

    @property
    def output(self) -> str:
        return self._output.read_text()

    def until_ready(self) -> "Run":
        wait_until(lambda: BANNER in self.output or self.process.poll() is not None, START_S)
        assert BANNER in self.output, self.output
        self.family = descendants(self.process.pid)
        return self

    def named(self, word: str) -> int:
        """Find the first process of the run with `word` in its command line."""
        return next(pid for pid in self.family if word in " ".join(command_line(pid)))

    def ends(self) -> int:
        """Wait for its end, check that nothing of it lives, and answer the exit code."""
        code = self.process.wait(STOP_S)
        assert self.has_gone(), self.living()
        return code

    def has_gone(self) -> bool:
        return wait_until(lambda: not self.living(), STOP_S)

    def living(self) -> list[list[str]]:
        """Find everybody of the run: those it had, and those who carry its data folder in their environment."""
        mark = f"ONELANE_DATA={self.data.path}\0".encode()
        others = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark in _environment(folder)]
        return [line for pid in {*self.family, *others} if (line := command_line(pid))]

    def last_line(self) -> str:
        return self.output.strip().splitlines()[-1]

    def destroy(self) -> None:
        for pid in [self.process.pid, *descendants(self.process.pid), *self.family]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def secrets_in(channels: str) -> dict[str, JsonObject]:
    """Leave out the addresses, in which are ports."""
    return {
        name: {field: value for field, value in channel.items() if not field.endswith("_url")}
        for name, channel in json.loads(channels).items()
    }


def _read(terminal: int, screen: list[str]) -> None:
    """Read what appears on a terminal, until its program has ended."""
    with suppress(OSError):
        while text := os.read(terminal, 4096):
            screen[0] += text.decode()


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    class Started(Run):
        def __init__(self, command: Sequence[str] = COMMAND, *, terminal: int | None = None, **env: str) -> None:
            super().__init__(tmp_path, command, terminal=terminal, **env)
            runs.append(self)

    yield Started
    for run in runs:
        run.destroy()


@pytest.mark.slow
def test_ctrl_c_stops_everything_it_started(start: Callable[..., Run]) -> None:
    run = start().until_ready()
    programs = " ".join(word for pid in run.family for word in command_line(pid))
    assert all(name in programs for name in ("gunicorn", "worker", "postgres", "redis.conf", "fake_providers"))
    assert re.search(r"started +(Redis|Valkey) \d+\.\d+\.\d+, /", run.output)
    assert re.search(r"started +fakes of .*twilio.*received\.jsonl", run.output)

    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert run.data.published() is None


@pytest.mark.slow
def test_many_sigterms_stop_it_once_and_in_order(start: Callable[..., Run]) -> None:
    run = start().until_ready()
    for _ in range(5):
        run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 0
    assert run.output.count("onelane: stopping") == 1


@pytest.mark.slow
def test_a_signal_during_the_start_stops_it_too(start: Callable[..., Run]) -> None:
    run = start()
    assert wait_until(lambda: bool(descendants(run.process.pid)), START_S)
    run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 0
    assert BANNER not in run.output


@pytest.mark.slow
def test_data_and_secret_survive_a_restart(start: Callable[..., Run]) -> None:
    run = start().until_ready()
    address = run.data.published()
    assert address is not None
    with psycopg.connect(address["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    run.process.send_signal(signal.SIGINT)
    run.ends()

    again = start().until_ready().data.published()
    assert again is not None
    assert secrets_in(again["CHANNELS"]) == secrets_in(address["CHANNELS"])
    with psycopg.connect(again["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


@pytest.mark.slow
def test_it_runs_again_after_kill_9_and_nothing_of_the_killed_run_stays(start: Callable[..., Run]) -> None:
    killed = start().until_ready()
    killed.process.kill()

    again = start(PORT=str(killed.port)).until_ready()
    assert not any(command_line(pid) for pid in killed.family)
    again.process.send_signal(signal.SIGINT)
    assert again.ends() == 0


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="without it nobody asks the system to end them")
@pytest.mark.slow
def test_everything_ends_when_it_is_killed(start: Callable[..., Run]) -> None:
    run = start().until_ready()
    run.process.kill()
    assert run.has_gone()


@pytest.mark.slow
def test_what_other_terminals_read_is_for_their_user_alone(start: Callable[..., Run]) -> None:
    run = start().until_ready()
    for name in ("run.json", "secret"):
        assert (run.data.path / name).stat().st_mode & 0o077 == 0
    address = run.data.published()
    assert address is not None
    assert set(address) == {"DATABASE_URL", "REDIS_URL", "CHANNELS", "PORT"}
    connection = HTTPConnection("127.0.0.1", int(address["PORT"]))
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.slow
def test_a_taken_port_is_said_in_one_line_with_what_to_do(start: Callable[..., Run]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start(PORT=str(port))
        assert run.ends() != 0
    assert run.output == f"onelane: PORT: {port} is taken; try another, as in PORT={port + 1}\n"


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused_and_harms_nothing(start: Callable[..., Run]) -> None:
    first = start().until_ready()
    stay = children_of(first.process.pid)  # what these start may end by itself: a probe, a worker of autovacuum
    assert len(stay) >= len(("postgres", "redis", "web", "worker"))
    second = start()
    assert second.process.wait(START_S) != 0
    assert "another `onelane run` works in" in second.last_line()
    assert second.output.count("\n") == 1
    assert all(command_line(pid) for pid in stay)


@pytest.mark.slow
def test_an_impossible_setting_is_said_in_one_line(start: Callable[..., Run]) -> None:
    run = start(WORKER_SLOTS="many")
    assert run.process.wait(START_S) != 0
    assert run.output == "onelane: WORKER_SLOTS: must be a whole number\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "argument",
    [(), ("nosuchbot:handle",)],
    ids=["HANDLER", "an argument"],
)
def test_a_bot_that_cannot_be_imported_ends_everything_with_the_reason(
    start: Callable[..., Run], argument: tuple[str, ...]
) -> None:
    handler = "onelane.handlers.echo:handle" if argument else "nosuchbot:handle"
    run = start((*COMMAND, *argument), HANDLER=handler)
    assert run.process.wait(START_S) == EXIT_CONFIG
    assert "HANDLER: cannot import nosuchbot: ModuleNotFoundError: No module named 'nosuchbot'" in run.output
    assert "Onelane runs." not in run.output
    assert run.last_line().startswith("onelane: worker ended with exit code")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gunicorn", "onelane worker", "redis.conf", "postgres"])
def test_the_death_of_one_process_stops_the_rest(start: Callable[..., Run], name: str) -> None:
    run = start().until_ready()
    os.kill(run.named(name), signal.SIGKILL)
    assert run.process.wait(35) == 1
    assert run.has_gone()
    assert "ended with exit code -9" in run.output or "died" in run.output


@pytest.fixture
def foreign(postgres: EmbeddedPostgres, redis_server: EmbeddedRedis) -> Iterator[dict[str, str]]:
    """Addresses of a database and a Redis of another project, each with something in it and a password."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE theirs")
    database = urlsplit(postgres.url)._replace(netloc="postgres:secret@", path="/theirs").geturl()
    lanes = urlsplit(redis_server.url)._replace(path="/9").geturl()
    with psycopg.connect(database) as connection, closing(Redis.from_url(lanes)) as client:
        connection.execute("CREATE TABLE theirs AS SELECT 1")
        client.hset("instance", "theirs", "1")
    yield {"DATABASE_URL": database, "REDIS_URL": lanes}
    with psycopg.connect(postgres.url, autocommit=True) as connection, closing(Redis.from_url(lanes)) as client:
        client.flushdb()
        connection.execute("DROP DATABASE theirs WITH (FORCE)")


def assert_untouched(foreign: dict[str, str]) -> None:
    tables = "SELECT array_agg(relname::text) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    with (
        psycopg.connect(foreign["DATABASE_URL"]) as connection,
        closing(Redis.from_url(foreign["REDIS_URL"])) as client,
    ):
        assert connection.execute(tables).fetchone() == (["theirs"],)
        assert client.keys() == [b"instance"]
        assert client.hgetall("instance") == {b"theirs": b"1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exported", "named"),
    [
        (["DATABASE_URL", "REDIS_URL"], r"DATABASE_URL .* PostgreSQL, database theirs on /"),
        (["REDIS_URL"], r"REDIS_URL .* Redis, 127\.0\.0\.1:\d+/9,"),
    ],
    ids=["both", "half"],
)
def test_without_a_terminal_a_server_of_another_project_is_not_used(
    start: Callable[..., Run], foreign: dict[str, str], postgres: EmbeddedPostgres, exported: list[str], named: str
) -> None:
    own = {"DATABASE_URL": postgres.url}
    run = start(**{**own, **{name: foreign[name] for name in exported}})
    assert run.ends() == EXIT_CONFIG
    assert re.fullmatch(rf"onelane: {named}.*--use-environment.*unset.*\n", run.output)
    assert "secret" not in run.output
    assert str(urlsplit(foreign["REDIS_URL"]).password) not in run.output
    assert_untouched(foreign)


@pytest.mark.slow
def test_who_says_no_at_the_terminal_gets_embedded_servers_for_the_run_and_all_commands(
    start: Callable[..., Run], foreign: dict[str, str]
) -> None:
    keyboard, terminal = os.openpty()
    os.write(keyboard, b"\n\n")  # no is what Enter means
    run = start(terminal=terminal, **foreign)
    os.close(terminal)
    screen = [""]
    threading.Thread(target=_read, args=(keyboard, screen), daemon=True).start()
    run.until_ready()
    assert screen[0].count("where Onelane has never been") == 2
    shell = {**os.environ, **foreign, VARIABLE: str(run.data.path)}
    for command in (["send", "--user", "alice", "hello"], ["doctor"], ["lanes"]):
        done = subprocess.run(
            [*PYTHON, "onelane", *command], env=shell, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert_untouched(foreign)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(STOP_S) == 0


@pytest.mark.slow
def test_variables_of_another_project_change_nothing(start: Callable[..., Run]) -> None:
    libpq = {
        "PGHOSTADDR": "127.0.0.9",
        "PGSERVICE": "theirs",
        "PGOPTIONS": "-c search_path=theirs",
        "PGDATESTYLE": "German",
    }
    web = {"GUNICORN_CMD_ARGS": "--bind 127.0.0.9:1 --worker-class sync", "FLASK_DEBUG": "1"}
    theirs = {
        **libpq,
        **web,
        "PGCLIENTENCODING": "LATIN1",
        "REDIS_TLS_URL": "rediss://theirs",
    }
    run = start((*COMMAND, "--verbose"), **theirs, RQ_KEY_PREFIX="theirs").until_ready()
    shell = {**os.environ, **theirs, VARIABLE: str(run.data.path)}
    for command, answer in ((["send", "--user", "alice", "¿qué? 日本"], "¿qué? 日本   (session "), (["lanes"], "")):
        done = subprocess.run(
            [*PYTHON, "onelane", *command], env=shell, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(answer)
    assert "LoopWorker" in run.output
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0


@pytest.mark.slow
def test_servers_of_ones_own_are_used_and_left_running(start: Callable[..., Run], tmp_path: Path) -> None:
    with (
        EmbeddedPostgres(tmp_path / "own-postgres", {"fsync": "off"}) as postgres,
        EmbeddedRedis(tmp_path / "own-redis") as lanes,
    ):
        named = {"DATABASE_URL": postgres.url, "REDIS_URL": lanes.url}
        for command in ((*COMMAND, "--use-environment"), COMMAND):  # Onelane has been there at the second run
            run = start(command, **named).until_ready()
            assert all(url not in run.output for url in named.values())  # it may hold a password
            assert f"DATABASE_URL of the environment is used: database postgres on {postgres.data_dir}" in run.output
            assert f"your own: 127.0.0.1:{lanes.port}/0 (REDIS_URL)" in run.output
            run.process.send_signal(signal.SIGINT)
            assert run.ends() == 0
        assert postgres.is_running
        assert lanes.is_running
        assert not (run.data.path / "postgres").exists()
        assert not (run.data.path / "redis").exists()


@pytest.mark.slow
def test_modules_of_the_working_folder_do_no_harm(start: Callable[..., Run], tmp_path: Path) -> None:
    for name in ("app", "worker", "tests", "click", "flask", "redis", "rq", "onelane_web"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    run = start().until_ready()
    shell = {**os.environ, VARIABLE: str(run.data.path)}
    send = [*PYTHON, "onelane", "send", "--user", "alice", "hello"]
    said = subprocess.run(send, cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=STOP_S, check=False)
    assert said.stdout.startswith("hello   (session "), said.stderr
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert "wrong package" not in run.output


def said(run: Run, text: str) -> list[str]:
    """Send a message to the running bot, and return its replies."""
    command = [*PYTHON, "onelane", "send", "--user", "alice", text]
    environment = {**os.environ, "ONELANE_DATA": str(run.data.path)}
    sent = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return sent.stdout.splitlines()


def write_bot(folder: Path, body: str) -> None:
    """Save a bot as an editor does, at once."""
    new = folder / "mybot.new"
    new.write_text(f"import time\n\ndef handle(turn):\n    {body}\n")
    new.replace(folder / "mybot.py")


@pytest.mark.slow
def test_the_model_bot_answers_without_a_key_from_a_fake_model_that_ends_with_the_rest(
    start: Callable[..., Run],
) -> None:
    run = start((*COMMAND, "onelane.handlers.llm:handle")).until_ready()
    assert "fake model" in run.output
    assert "export LLM_API_KEY=" in run.output
    assert run.named("onelane.testing.fake_model")
    assert any("You said: hello" in answer for answer in said(run, "hello"))
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0


@pytest.mark.slow
def test_a_changed_bot_answers_after_the_turn_that_runs_and_one_that_is_broken_changes_nothing(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    write_bot(tmp_path, 'open("begun", "w").close(); time.sleep(3); return "old"')
    (tmp_path / ".env").write_text("HANDLER=mybot:handle\n")
    run = start().until_ready()
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.extend(said(run, "first")))
    asking.start()
    assert wait_until((tmp_path / "begun").exists, START_S)
    write_bot(tmp_path, 'return "new"')
    assert wait_until(lambda: "the new bot answers" in run.output, START_S), run.output
    asking.join(START_S)
    assert sum("old" in answer for answer in answers) == 1, answers
    line = r"worker +\| \d\d:\d\d:\d\d  user \w{6}  session \w{6}  message 1  \d+ ms  committed"
    assert re.search(f"^{line}$", run.output, re.MULTILINE)
    assert "delivery_accepted" not in run.output
    assert any("new" in answer for answer in said(run, "second"))
    problem = run.data.path / "problem.txt"
    write_bot(tmp_path, "return (")
    assert wait_until(problem.exists, START_S), run.output
    assert "mybot.py, line" in problem.read_text()
    with urlopen(f"http://127.0.0.1:{run.port}/try/state?channel=demo", timeout=START_S) as state:
        assert "mybot.py, line" in json.load(state)["problem"]
    assert any("new" in answer for answer in said(run, "third"))
    write_bot(tmp_path, 'return "mended"')
    assert wait_until(lambda: not problem.exists(), START_S), run.output
    assert wait_until(lambda: any("mended" in answer for answer in said(run, "fourth")), START_S)
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
