"""The doctor is quiet when all is well, and names each planted fault. Whatever is planted is taken back."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
import redis
from click.testing import CliRunner, Result

from onelane import keys
from onelane.bootstrap import Services, open_services
from onelane.bot import Later, Turn
from onelane.cli import onelane
from onelane.config import Channel, Settings
from onelane.dev.embedded import EmbeddedRedis
from onelane.dev.embedded.redis import free_port
from onelane.doctor import (
    examination as doctor,
)
from onelane.doctor import (
    lanes as lane_checks,
)
from onelane.doctor import (
    replies as reply_checks,
)
from onelane.doctor import (
    servers as server_checks,
)
from onelane.doctor import (
    sessions as session_checks,
)
from onelane.doctor.finding import Deployment, Finding, Health
from onelane.errors import StoreDenied
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import text_of
from onelane.postgres import migrations
from onelane.processes.registration import Registration
from onelane.turns.isolation import WORKS
from tests.by_hand import ByHand
from tests.calls import Calls, lease, sent
from tests.conftest import SECRET, Accept, RunWorker, eventually
from tests.rows import Rows
from tests.working_off import work_off

UPLOADED = ("numbers", "counted:", "instance", "minutes")
"""What this process counts, and uploads every second, is not the doctor's."""

Findings = dict[str, Finding]
Examine = Callable[..., Findings]
LookAt = Callable[..., Finding]
Invoke = Callable[..., Result]

INDEX = (
    "CREATE UNIQUE INDEX idx_unique_active_session_per_user ON conversation_sessions (user_id) WHERE status <> 'ended'"
)
HOUR_OF_DAY_RULE = """
CREATE OR REPLACE FUNCTION should_create_new_session(
    p_channel text, p_started_at timestamptz, p_last_message_at timestamptz, p_accepted_at timestamptz)
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN extract(hour FROM p_last_message_at) >= 20 AND extract(hour FROM p_accepted_at) >= 6
                THEN 'end_of_day' END
$$
"""
WITHOUT_A_LOCK = """
CREATE OR REPLACE FUNCTION get_or_create_session(p_user_id uuid, p_accepted_at timestamptz DEFAULT NULL)
RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO conversation_sessions (user_id, started_at, last_message_at, sweep_at)
    VALUES ($1, now(), now(), now()) RETURNING id
$$
"""


SLOW_ANOMALY = """
CREATE OR REPLACE VIEW session_anomalies AS
SELECT CASE WHEN pg_sleep(10) IS NOT NULL THEN 'outside' END AS kind, NULL::uuid AS user_id, NULL::uuid AS session_id,
       at, NULL AS detail
  FROM (VALUES (clock_timestamp() - interval '2 hours')) AS v (at)
"""
"""One anomaly of two hours ago, which takes ten seconds to find."""


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a lane less time to settle: nothing here heals by itself."""
    monkeypatch.setattr(lane_checks, "SETTLE_S", 0.3)
    monkeypatch.setattr(lane_checks, "AGAIN_S", 0.02)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Have a channel that can send."""
    return settings.model_copy(update={"channels": {"demo": Channel(provider="demo", secrets=(SECRET,))}})


@pytest.fixture
def examine(services: Services) -> Examine:
    def examine(**changes: object) -> Findings:
        deployment = Deployment(services.settings.model_copy(update=changes), services.database, services.lanes)
        return {one.check: one.finding for one in doctor.examine(deployment)}

    return examine


@pytest.fixture
def look_at(services: Services) -> LookAt:
    """Make one check alone."""

    def look_at(name: str, **changes: object) -> Finding:
        deployment = Deployment(services.settings.model_copy(update=changes), services.database, services.lanes)
        check = next(one for one in doctor.CHECKS if one.name == name)
        [examined] = doctor.examine(deployment, [check])
        return examined.finding

    return look_at


@pytest.fixture
def invoke(settings: Settings, _root_logger_as_it_was: None) -> Invoke:
    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(
            onelane,
            arguments,
            env={"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, **environment},
        )

    return invoke


@contextmanager
def planted(services: Services, fault: str, cure: str) -> Iterator[None]:
    services.database.rows(fault)
    try:
        yield
    finally:
        Rows(services.database).empty()
        services.database.rows(cure)


def shipped(name: str, folder: str = "functions") -> str:
    return migrations.shipped_code()[f"{folder}/{name}"]


def plain(result: Result) -> str:
    return re.sub(" +", " ", result.output)


def failures(findings: Findings) -> set[str]:
    return {name for name, finding in findings.items() if finding.health is Health.FAILED}


# all is well


@pytest.mark.usefixtures("log_lines")  # the worker's log is none of the command's output
def test_with_a_worker_all_is_ok_and_a_machine_can_read_it(
    services: Services, settings: Settings, invoke: Invoke, run_worker: RunWorker
) -> None:
    with run_worker(settings):
        eventually(lambda: services.lanes.client.smembers("rq:workers"))
        result = invoke("doctor", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["health"] == "ok", answer
    assert [one["check"] for one in answer["examined"]] == [check.name for check in doctor.CHECKS]


@pytest.mark.usefixtures("services")
def test_without_a_worker_it_warns_and_says_what_to_do(invoke: Invoke) -> None:
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    assert "warning workers no worker is alive" in plain(result)
    assert "→ start one: onelane worker" in result.output
    assert sum(line.startswith("ok ") for line in result.output.splitlines()) == len(doctor.CHECKS) - 1


def test_suspended_workers_are_a_warning(
    services: Services, settings: Settings, look_at: LookAt, run_worker: RunWorker
) -> None:
    with run_worker(settings):
        eventually(lambda: services.lanes.client.smembers("rq:workers"))
        services.lanes.client.set("rq:suspended", 1)
        finding = look_at("workers")
        services.lanes.client.delete("rq:suspended")
    assert (finding.health, finding.todo) == (Health.WARNING, "rq resume")


def test_a_worker_that_cannot_run_a_suspect_message_apart_is_a_warning(services: Services, look_at: LookAt) -> None:
    states = ["the handler's process died with exit code 1 before it was ready", WORKS]
    worker = Registration(services.lanes.client, "one", services.lanes.roster.note, lambda: states[0])
    services.lanes.roster.note("two")
    services.lanes.client.hset(keys.worker("two"), "isolation", WORKS)
    worker.beat([])
    finding = look_at("isolation")
    assert (finding.health, finding.details) == (Health.WARNING, (f"one: {states[0]}",))
    del states[0]
    worker.beat([])
    assert look_at("isolation").health is Health.OK
    worker.withdraw()


def test_it_leaves_nothing_behind(rows: Rows, services: Services, examine: Examine) -> None:
    def everything() -> tuple[dict[str, int], list[str], list[str]]:
        schemas = rows.ask("SELECT array_agg(nspname ORDER BY nspname) AS all FROM pg_namespace").all
        names = [text_of(key) for key in services.lanes.client.keys("*")]
        return rows.counts(), schemas, sorted(name for name in names if not name.startswith(UPLOADED))

    before = everything()
    assert failures(examine()) == set()
    assert everything() == before


def test_what_a_killed_doctor_left_is_removed_by_the_next_but_not_what_one_uses_now(
    rows: Rows, services: Services, look_at: LookAt
) -> None:
    for sender, age_s in (("old", 120), ("new", 1)):
        made_at = datetime.now(UTC) - timedelta(seconds=age_s)
        user = "INSERT INTO users (channel, sender, created_at) VALUES (%s, %s, %s) RETURNING id"
        rows.session_of(rows.ask(user, session_checks.SCRATCH_CHANNEL, sender, made_at).id)
    assert look_at("same session").health is Health.OK
    assert rows.senders() == ["new"]


@pytest.mark.slow
def test_traffic_raises_no_false_alarm(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    examine: Examine,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_checks, "SETTLE_S", 6.0)
    done = Event()

    def write(nr: int) -> None:
        count = 0
        while not done.is_set():
            accept(f"user {nr} {count % 20}", external_id=f"{nr}-{count}")
            count += 1

    with run_worker(settings), ThreadPoolExecutor(3) as pool:
        eventually(lambda: services.lanes.client.smembers("rq:workers"))
        for nr in range(3):
            pool.submit(write, nr)
        try:
            eventually(lambda: len(rows.accepted()) > 50)
            findings = [examine() for _ in range(2)]
        finally:
            done.set()
    problems = [finding for one in findings for finding in one.values() if finding.health is not Health.OK]
    assert problems == []


# the definitions


def test_a_dropped_index_fails_and_is_named_with_its_cure(services: Services, look_at: LookAt, invoke: Invoke) -> None:
    with planted(services, "DROP INDEX idx_unique_active_session_per_user", INDEX):
        result = invoke("doctor")
        finding = look_at("tables")
    assert result.exit_code == 1
    assert "failed tables idx_unique_active_session_per_user is missing" in plain(result)
    services.database.rows("DROP INDEX idx_unique_active_session_per_user")
    services.database.rows(finding.todo)
    assert look_at("tables").health is Health.OK


def test_an_index_that_forbids_less_fails(services: Services, look_at: LookAt) -> None:
    drop = "DROP INDEX idx_unique_active_session_per_user"
    with planted(services, drop, INDEX), planted(services, INDEX.replace("<> 'ended'", "= 'active'"), drop):
        finding = look_at("tables")
    assert finding.health is Health.FAILED
    assert finding.found == "idx_unique_active_session_per_user is not the shipped one"
    assert finding.todo.startswith("DROP INDEX idx_unique_active_session_per_user; CREATE UNIQUE INDEX")


@pytest.mark.parametrize(
    ("spoil", "cure", "missing"),
    [
        (
            "ALTER TABLE users DROP CONSTRAINT a_pause_has_a_reason",
            (
                "ALTER TABLE users ADD CONSTRAINT a_pause_has_a_reason"
                " CHECK ((paused_at IS NULL) = (pause_reason IS NULL))"
            ),
            "users.a_pause_has_a_reason",
        ),
        (
            "ALTER DOMAIN amount DROP CONSTRAINT amount_check",
            "ALTER DOMAIN amount ADD CONSTRAINT amount_check CHECK (VALUE >= 0)",
            "amount.amount_check",
        ),
    ],
)
def test_a_dropped_constraint_fails(
    services: Services, examine: Examine, look_at: LookAt, spoil: str, cure: str, missing: str
) -> None:
    with planted(services, spoil, cure):
        finding = look_at("tables")
        services.database.rows(finding.todo)
        assert failures(examine()) == set()
        services.database.rows(spoil)  # for the cure to find
    assert finding.found == f"{missing} is missing"


def test_a_further_index_fails_nothing(services: Services, examine: Examine) -> None:
    with planted(services, "CREATE INDEX an_operators_own ON users (created_at)", "DROP INDEX an_operators_own"):
        assert failures(examine()) == set()


def test_the_hour_of_day_rule_fails_and_is_named(services: Services, examine: Examine, invoke: Invoke) -> None:
    with planted(services, HOUR_OF_DAY_RULE, shipped("should_create_new_session")):
        result = invoke("doctor")
        findings = examine()
    assert result.exit_code == 1
    # from 20:00 to 23:59 it also splits the session that the doctor tries out now
    assert failures(findings) - {"same session"} == {"functions", "ten seconds"}
    assert findings["functions"].found == "should_create_new_session is not the shipped one"
    assert findings["functions"].todo.startswith("DELETE FROM schema_files WHERE name = 'functions/should_create")
    assert "from 20:00 to 23:59" in findings["ten seconds"].details[0]


def test_what_is_printed_puts_a_function_back_from_the_wheel(
    services: Services, settings: Settings, look_at: LookAt
) -> None:
    with planted(services, HOUR_OF_DAY_RULE, shipped("should_create_new_session")):
        statement, _, command = look_at("functions").todo.partition("; then: ")
        services.database.rows(statement)
        assert command == "onelane migrate"
        assert migrations.migrate(settings.database_url) == ["functions/should_create_new_session"]
        assert look_at("functions").health is Health.OK


def test_where_what_somebody_made_has_another_shape_the_migration_says_what_to_drop(
    services: Services, settings: Settings, look_at: LookAt
) -> None:
    shape = Rows(services.database).ask("SELECT pg_get_viewdef('session_anomalies'::regclass) AS sql").sql
    with services.database.transaction() as connection:
        connection.execute(
            f"CREATE OR REPLACE VIEW session_anomalies AS SELECT *, 1 AS more FROM ({shape.rstrip(';')}) _"
        )
    statement, _, _ = look_at("functions").todo.partition("; then: ")
    services.database.rows(statement)
    with pytest.raises(StoreDenied, match=r"another view session_anomalies .*DROP it"):
        migrations.migrate(settings.database_url)
    services.database.rows("DROP VIEW session_anomalies")
    assert migrations.migrate(settings.database_url) == ["views/session_anomalies"]
    assert look_at("functions").health is Health.OK


def test_what_is_printed_puts_a_function_back_that_has_no_file(services: Services, look_at: LookAt) -> None:
    spoil = "CREATE OR REPLACE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT gen_random_uuid()'"
    with services.database.transaction() as connection:
        row = connection.execute("SELECT pg_get_functiondef('new_id'::regproc) AS shipped").fetchone()
    with planted(services, spoil, row.shipped if row else ""):
        finding = look_at("functions")
        services.database.rows(finding.todo)
        assert look_at("functions").health is Health.OK
    assert finding.found == "new_id is not the shipped one"


def test_a_second_function_of_a_shipped_name_fails(services: Services, look_at: LookAt) -> None:
    second = (
        "CREATE FUNCTION policy_of(p_channel varchar) RETURNS channel_policies LANGUAGE sql"
        " AS 'SELECT NULL::channel_policies'"
    )
    with planted(services, second, "DROP FUNCTION policy_of(varchar)"):
        finding = look_at("functions")
    assert finding.health is Health.FAILED
    assert finding.found == "policy_of exists a second time, as policy_of(p_channel character varying)"


def test_a_role_that_may_not_create_a_schema_gets_a_warning(services: Services, settings: Settings) -> None:
    services.database.rows("CREATE ROLE narrow")
    services.database.rows("GRANT ALL ON ALL TABLES IN SCHEMA public TO narrow")
    services.database.rows("ALTER ROLE postgres SET role = 'narrow'")  # from the next connection on
    narrow = open_services(settings)
    try:
        findings = {
            one.check: one.finding for one in doctor.examine(Deployment(settings, narrow.database, narrow.lanes))
        }
    finally:
        narrow.close()
        services.database.rows("ALTER ROLE postgres RESET role")
        services.database.rows("DROP OWNED BY narrow")
        services.database.rows("DROP ROLE narrow")
    assert failures(findings) == set()
    assert findings["functions"].health is findings["tables"].health is Health.WARNING
    assert "GRANT CREATE ON DATABASE" in findings["tables"].todo


def test_a_pending_migration_fails_and_an_unknown_one_warns(services: Services, look_at: LookAt) -> None:
    name = "functions/accept"
    digest = Rows(services.database).ask("DELETE FROM schema_files WHERE name = %s RETURNING digest", name).digest
    with planted(services, "SELECT 1", f"INSERT INTO schema_files (name, digest) VALUES ('{name}', '{digest}')"):
        finding = look_at("migrations")
    assert (finding.health, finding.todo) == (Health.FAILED, "run `onelane migrate`")
    later = "INSERT INTO schema_files (name, digest) VALUES ('migrations/9999_later', '')"
    with planted(services, later, "DELETE FROM schema_files WHERE name = 'migrations/9999_later'"):
        finding = look_at("migrations")
    assert finding.health is Health.WARNING
    assert "migrations/9999_later" in finding.found


# the sessions


def test_two_active_sessions_fail_with_user_and_sessions(
    rows: Rows, services: Services, accept: Accept, examine: Examine
) -> None:
    user_id = accept("alice").user_id
    services.lanes.client.flushall()
    with planted(services, "DROP INDEX idx_unique_active_session_per_user", INDEX):
        for _ in range(2):
            rows.make_session(user_id)
        findings = examine()
    assert {"tables", "one session", "anomalies"} <= failures(findings)
    assert str(user_id) in findings["one session"].details[0]
    assert str(user_id) in findings["anomalies"].details[0]


def test_a_resolver_that_gives_a_session_to_everybody_who_asks_fails(
    rows: Rows, services: Services, look_at: LookAt
) -> None:
    with planted(services, "DROP INDEX idx_unique_active_session_per_user", INDEX):
        services.database.rows(WITHOUT_A_LOCK)
        finding = look_at("same session")
        services.database.rows(shipped("get_or_create_session"))
        left = rows.senders()
    assert finding.health is Health.FAILED
    assert "2 ids twice in turn, 20 ids 20 times at once" in finding.found
    assert left == []


def test_a_resolver_that_lets_the_index_refuse_fails_as_well(rows: Rows, services: Services, look_at: LookAt) -> None:
    with planted(services, WITHOUT_A_LOCK, shipped("get_or_create_session")):
        finding = look_at("same session")
    assert finding.health is Health.FAILED
    assert finding.found == "get_or_create_session fails: UniqueViolation"
    assert rows.senders() == []


def test_a_resolver_that_answers_everybody_with_the_same_error_fails_as_well(
    services: Services, look_at: LookAt
) -> None:
    """All twenty had the same answer, and that was taken for the same session."""
    broken = WITHOUT_A_LOCK.replace("now(), now(), now()", "now(), now(), NULL")
    with planted(services, broken, shipped("get_or_create_session")):
        finding = look_at("same session")
    assert finding.health is Health.FAILED
    assert finding.found == "get_or_create_session fails: NotNullViolation"


def test_an_anomaly_of_today_fails_with_user_session_and_time(
    rows: Rows, services: Services, accept: Accept, look_at: LookAt
) -> None:
    user_id = accept("bob").user_id
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    for started_at in (hour_ago, hour_ago + timedelta(seconds=5)):
        rows.make_session(user_id, started_at, started_at, "timeout")
    finding = look_at("anomalies")
    assert finding.health is Health.FAILED
    assert "opened_early" in finding.found
    assert str(user_id) in finding.details[0]


def test_an_ok_names_how_many_messages_a_session_has(
    rows: Rows, services: Services, settings: Settings, accept: Accept, look_at: LookAt
) -> None:
    for _ in range(3):
        accept("carol")
    work_off(services, settings)
    assert look_at("anomalies").found == "none within the last 24 hours; 3.0 messages a session"


def test_of_a_day_that_takes_too_long_the_last_hour_is_looked_at(
    services: Services, look_at: LookAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_checks, "WINDOW_MAX_S", 1)
    with planted(services, SLOW_ANOMALY, shipped("session_anomalies", folder="views")):
        assert look_at("anomalies").found == "none within the last 1 hour"


# the servers


def test_a_full_redis_is_shown_and_fails_nothing(services: Services, accept: Accept, examine: Examine) -> None:
    accept("alice")
    services.lanes.client.config_set("maxmemory", 1)
    try:
        findings = examine()
    finally:
        services.lanes.client.config_set("maxmemory", 0)
    assert failures(findings) == set()
    assert findings["memory"].health is Health.WARNING
    assert findings["memory"].found.startswith("Redis is full: ")


def test_a_host_that_forbids_config_and_info_gets_warnings_only(
    services: Services, settings: Settings, redis_server: EmbeddedRedis
) -> None:
    services.lanes.client.execute_command("ACL SETUSER guest on >secret ~* &* +@all -config -info")
    url = f"redis://guest:secret@127.0.0.1:{redis_server.port}/0"
    guest = open_services(settings.model_copy(update={"redis_url": url}))
    try:
        deployment = Deployment(settings, guest.database, guest.lanes)
        findings = {one.check: one.finding for one in doctor.examine(deployment)}
    finally:
        guest.close()
        services.lanes.client.execute_command("ACL DELUSER guest")
    assert failures(findings) == set()
    assert findings["redis"].health is findings["eviction"].health is Health.WARNING
    assert findings["connections"].health is Health.OK


class Skewed(redis.Redis):
    """A client of a server whose clock is wrong."""

    offset_s = 0.0

    def time(self, **kwargs: Any) -> tuple[int, int]:
        seconds, microseconds = super().time(**kwargs)
        shown = int((seconds + self.offset_s) * 1_000_000) + microseconds
        return divmod(shown, 1_000_000)


@pytest.mark.parametrize(("offset_s", "health"), [(0.1, "ok"), (-2, "warning"), (40, "failed")])
def test_clocks_apart_warn_and_then_fail(services: Services, settings: Settings, offset_s: float, health: str) -> None:
    with Skewed.from_url(settings.redis_url) as client:
        client.offset_s = offset_s
        deployment = Deployment(settings, services.database, Lanes(client))
        assert server_checks.clocks(deployment).health == health


def test_settings_that_want_more_connections_than_allowed_are_a_warning(services: Services, look_at: LookAt) -> None:
    assert look_at("connections", db_pool_max=64, web_db_pool_max=64).health is Health.WARNING
    assert "Redis may refuse" in _with_maxclients(services, look_at).found


def _with_maxclients(services: Services, look_at: LookAt) -> Finding:
    services.lanes.client.config_set("maxclients", 10)
    try:
        return look_at("connections")
    finally:
        services.lanes.client.config_set("maxclients", 10_000)


@pytest.mark.parametrize(("setting", "server"), [("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")])
def test_an_unreachable_server_is_a_failed_check_and_no_traceback(invoke: Invoke, setting: str, server: str) -> None:
    url = {"postgres": "postgresql://nobody@127.0.0.1:{}/x", "redis": "redis://127.0.0.1:{}/0"}[server]
    result = invoke("doctor", **{setting: url.format(free_port())})
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    assert f"failed {server}" in plain(result)
    assert f"not checked, because the check `{server}` failed" in result.output


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "server"), [("database_url", "postgres"), ("redis_url", "redis")])
@pytest.mark.usefixtures("services")
def test_a_server_that_never_answers_ends_with_the_deadline(settings: Settings, setting: str, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = {"postgres": "postgresql://nobody@127.0.0.1:{}/x", "redis": "redis://127.0.0.1:{}/0"}[server]
        changed = settings.model_copy(update={setting: url.format(hole.getsockname()[1])})
        stuck = open_services(changed, redis_timeout_s=1)
        began = time.monotonic()
        deployment = Deployment(changed, stuck.database, stuck.lanes)
        findings = {one.check: one.finding for one in doctor.examine(deployment, deadline_s=0.5)}
        took_s = time.monotonic() - began
        stuck.close()
    assert findings[server].found == "no answer within 0.5 s"
    assert took_s < 15


# the lanes


def test_a_waiting_user_without_a_lane_fails(services: Services, accept: Accept, look_at: LookAt) -> None:
    user_id = accept("dora").user_id
    services.lanes.client.flushall()
    finding = look_at("lanes")
    assert finding.health is Health.FAILED
    assert f"messages wait, but there is no lane: {user_id}" in finding.found


def test_a_lane_that_comes_while_the_doctor_looks_is_no_fault(
    services: Services, accept: Accept, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = accept("dora")
    services.lanes.client.flushall()
    monkeypatch.setattr(lane_checks, "SETTLE_S", 10.0)

    def looks() -> int:
        return int(services.lanes.client.info("commandstats").get("cmdstat_zmscore", {}).get("calls", 0))

    before = looks()
    with ThreadPoolExecutor(1) as pool:
        examining = pool.submit(examine)
        eventually(lambda: looks() > before)
        services.lanes.enqueue(message.user_id, message.message_id)
        assert examining.result()["lanes"].health is Health.OK


def test_a_lane_of_a_user_that_postgres_does_not_know_fails(services: Services, look_at: LookAt) -> None:
    stranger = uuid4()
    services.lanes.enqueue(stranger, uuid4())
    finding = look_at("lanes")
    assert finding.health is Health.FAILED
    assert f"a lane without a user: {stranger}" in finding.found


def test_a_lane_that_is_no_users_fails_and_is_named(services: Services, look_at: LookAt) -> None:
    services.lanes.client.zadd("lanes:in", {"somebody else's": 1})
    finding = look_at("lanes")
    assert finding.health is Health.FAILED
    assert "a lane whose name is no user id" in finding.found
    assert "somebody else's" in finding.found


def test_a_lane_paused_only_in_redis_fails(services: Services, accept: Accept, look_at: LookAt) -> None:
    user_id = accept("emil").user_id
    services.lanes.pause(user_id)
    finding = look_at("lanes")
    assert finding.health is Health.FAILED
    assert f"the lane is paused, the user is not: {user_id}" in finding.found


def test_a_lane_that_waits_longer_than_anything_we_set_fails(
    services: Services, accept: Accept, look_at: LookAt
) -> None:
    user_id = accept("emil").user_id
    services.lanes.client.zadd("lanes:in", {str(user_id): 9e15})
    finding = look_at("lanes")
    assert finding.health is Health.FAILED
    assert f"the lane waits for longer than anything we set: {user_id}" in finding.found


def test_a_user_paused_only_in_postgres_is_a_warning_since_no_turn_begins(
    rows: Rows, services: Services, accept: Accept, look_at: LookAt
) -> None:
    user_id = accept("emil").user_id
    rows.pause(user_id)
    finding = look_at("lanes")
    assert finding.health is Health.WARNING
    assert f"the user is paused, the lane is due: {user_id}" in finding.found


def test_a_paused_user_on_both_sides_is_ok(rows: Rows, services: Services, accept: Accept, look_at: LookAt) -> None:
    user_id = accept("emil").user_id
    rows.pause(user_id)
    services.lanes.pause(user_id)
    assert look_at("lanes").health is Health.OK


@pytest.mark.parametrize("counter", [0, 5])
def test_a_counter_that_does_not_count_fails(
    rows: Rows, services: Services, accept: Accept, look_at: LookAt, counter: int
) -> None:
    user_id = accept("fay").user_id
    rows.set_waiting(user_id, counter)
    finding = look_at("lanes")
    assert finding.health is Health.FAILED
    assert f"users.waiting is not the number of waiting messages: {user_id}" in finding.found
    services.database.rows(finding.todo)
    assert look_at("lanes").health is Health.OK


def test_a_message_that_waits_where_nobody_looks_fails(
    rows: Rows, services: Services, accept: Accept, look_at: LookAt
) -> None:
    user_id = accept("fay").user_id
    services.database.rows("UPDATE users SET next_seq = 2")
    finding = look_at("lanes")
    assert finding.health is Health.FAILED
    assert f"a message waits below users.next_seq, where nobody looks: {user_id}" in finding.found
    services.database.rows(finding.todo)
    assert rows.user(user_id).next_seq == 1
    assert look_at("lanes").health is Health.OK


def test_a_lane_with_nothing_to_do_is_a_warning(
    rows: Rows, services: Services, accept: Accept, look_at: LookAt
) -> None:
    user_id = accept("gus").user_id
    rows.forget_messages()
    finding = look_at("lanes")
    assert finding.health is Health.WARNING
    assert f"the lane is due, but nothing waits: {user_id}" in finding.found


def test_with_more_users_than_it_looks_at_it_looks_at_some_anywhere(
    rows: Rows, services: Services, monkeypatch: pytest.MonkeyPatch, look_at: LookAt
) -> None:
    monkeypatch.setattr(lane_checks, "SAMPLE_MAX", 10)
    rows.make_waiting_users(40)
    rows.forget_messages()
    deployment = Deployment(services.settings, services.database, services.lanes)
    seen = {user for _ in range(20) for user in lane_checks._sample(deployment)[0]}
    assert len(seen) > 20
    assert look_at("lanes").found == "Redis and Postgres agree; users looked at: 10"


def test_of_users_with_replies_it_looks_at_some_anywhere_also_behind_one_with_many(
    rows: Rows, services: Services, monkeypatch: pytest.MonkeyPatch, look_at: LookAt
) -> None:
    """It began at the first user, always, and counted replies: one user with many was all that it looked at."""
    monkeypatch.setattr(lane_checks, "SAMPLE_MAX", 10)
    users = sorted(rows.make_user("demo", f"partner {nr}") for nr in range(40))
    outbox = "INSERT INTO outbox (user_id, turn_seq, ordinal, id, channel) VALUES (%s, 1, %s, new_id(), 'demo')"
    for user_id in users:
        services.database.rows(outbox, (user_id, 1))
    for ordinal in range(2, 30):
        services.database.rows(outbox, (users[0], ordinal))
    deployment = Deployment(services.settings, services.database, services.lanes)
    samples = [reply_checks._sample(deployment) for _ in range(20)]
    assert {len(users) for users in samples} == {10}
    assert len({user for users in samples for user in users}) > 20
    assert look_at("reply lanes").found == "users whose replies wait without a lane: 10 of 10"


# the handlers


def test_messages_that_wait_for_a_service_fail_or_have_died_are_a_warning_by_the_kind_of_their_errors(
    services: Services, settings: Settings, accept: Accept, look_at: LookAt
) -> None:
    errors = {
        "first": ConnectionRefusedError(),
        "second": ConnectionRefusedError(),
        "third": Later(50, "the model is away"),
        "fourth": ValueError(),
        "fifth": KeyError(),
    }

    def handle(turn: Turn) -> str:
        raise errors[turn.user.sender]

    for sender in errors:
        accept(sender, "my secret words")
    settings = settings.model_copy(update={"retry_base_s": 60, "retry_max_s": 60, "attempts_max": 2})
    work_off(services, settings, handle, patience_s=1)
    finding = look_at("handlers")
    assert finding.health is Health.WARNING
    assert finding.details == (
        "1 failed, and are tried again: KeyError",
        "1 failed, and are tried again: ValueError",
        "2 wait for what their handler needs: ConnectionRefusedError",
        "1 wait for what their handler needs: onelane.errors.Later: the model is away",
    )
    assert "turn_postponed" in finding.todo
    assert "dead list" not in finding.todo


def test_who_died_lately_is_a_warning_until_it_is_redriven_or_dropped(
    rows: Rows, services: Services, settings: Settings, accept: Accept, look_at: LookAt
) -> None:
    message = accept("eve", "raise my secret words")
    work_off(services, settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 1}))
    finding = look_at("handlers")
    assert (finding.health, finding.todo) == (Health.WARNING, "onelane dead list")
    assert finding.details == ("1 died within the last 1 hour: ValueError",)
    rows.redrive(message.message_id)
    assert look_at("handlers").health is Health.OK


# replies


def replied(services: Services, *texts: str) -> ByHand:
    """Let a user get replies, which nobody sends."""
    alice = ByHand(services.database)
    alice.say()
    alice.turn(replies=[{"text": text} for text in texts])
    return alice


def test_replies_without_a_lane_fail_and_with_one_all_is_ok(
    services: Services, examine: Examine, look_at: LookAt
) -> None:
    alice = replied(services, "one")
    finding = look_at("reply lanes")
    assert (finding.health, finding.details) == (Health.FAILED, (f"user {alice.user_id}",))
    assert "start a worker" in finding.todo
    [reply] = alice.rows.replies(alice.user_id)
    services.out_lanes.enqueue(alice.user_id, reply.id)
    assert failures(examine()) == set()


def test_what_waits_for_long_is_not_known_or_was_given_up_is_a_warning(services: Services, look_at: LookAt) -> None:
    alice, calls = replied(services, "given up", "unknown", "waits"), Calls(services.database)
    for outcomes in (("unknown", "give_up"), ("unknown",)):
        [begun] = calls.begin_sends(lease(alice.user_id))
        for outcome in outcomes:
            calls.settle_sends(sent(begun, outcome))
    finding = look_at("replies")
    assert finding.health is Health.WARNING
    assert finding.found == (
        "replies of which nobody knows yet whether they arrived: 1; replies of which nobody will know: 1"
    )
    assert "onelane reply settle" in finding.todo


def test_a_broken_channel_fails_and_is_named_with_its_cure(services: Services, look_at: LookAt) -> None:
    alice, calls = replied(services, "refused"), Calls(services.database)
    calls.settle_sends(sent(calls.begin_sends(lease(alice.user_id))[0], "broken", failure="denied", failure_code="190"))
    finding = look_at("replies")
    assert (finding.health, finding.details) == (Health.FAILED, ("demo: denied (190)",))
    assert "onelane channel open NAME" in finding.todo


def test_channels_without_a_way_to_send_are_a_warning_once(services: Services, look_at: LookAt) -> None:
    mute = {
        "in": Channel(provider="standard", secrets=(SECRET,)),
        "wa": Channel(provider="meta", secrets=("a" * 16,)),
    }
    finding = look_at("ways to send", channels={**services.settings.channels, **mute})
    assert (finding.health, finding.details) == (
        Health.WARNING,
        ("in: without reply_url", "wa: without access_token"),
    )
