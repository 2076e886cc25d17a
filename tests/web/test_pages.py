"""The operator's pages without a browser: what they show, what they hide, and who may do what."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from onelane import keys
from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.deliveries import Accepted
from onelane.dev.embedded.redis import free_port
from onelane.doctor import lanes as lane_checks
from onelane.doctor.examination import WITHOUT_BOTS, Check
from onelane.doctor.finding import Finding, ok
from onelane.operations.overview import glance
from onelane.operations.trends import last_hour
from onelane.operators import OpsUser, hashed
from onelane_web import gunicorn_settings
from onelane_web.ops import examining, pages
from tests.conftest import DEADLINE_S, Accept
from tests.door import CANARY, PASSWORD, operator_of, try_to_log_in, web_of
from tests.rows import Rows

GENERAL = ("overview", "users", "replies", "dead", "quarantine", "anomalies", "doctor")


@pytest.fixture
def onlooker(services: Services) -> FlaskClient:
    """Log in as somebody who may look, and not act."""
    eve = OpsUser(password=hashed(PASSWORD), role="look")
    client = web_of(services, ops_users={"eve": eve}).test_client()
    assert try_to_log_in(client, user="eve").status_code == 303
    token = client.get_cookie("_csrf_token", path="/ops")
    assert token
    client.environ_base["HTTP_X_CSRFTOKEN"] = token.value
    return client


@pytest.mark.parametrize("page", GENERAL)
def test_every_page_opens_also_when_there_is_nothing_to_show(operator: FlaskClient, page: str) -> None:
    answer = operator.get(f"/ops/{page}")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy


def test_a_page_that_has_not_changed_is_not_sent_again(operator: FlaskClient, dead: list[Accepted]) -> None:
    for path in ("quarantine", "users", f"users/{dead[0].user_id}"):
        first = operator.get(f"/ops/{path}")
        again = operator.get(f"/ops/{path}", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b""), path


def test_what_was_written_is_hidden_until_it_is_asked_for_and_that_is_recorded(
    operator: FlaskClient, rows: Rows, dead: list[Accepted]
) -> None:
    address = f"/ops/users/{dead[0].user_id}"
    seen = [operator.get(f"/ops/{page}").text for page in GENERAL] + [operator.get(address).text]
    assert not any(CANARY in page or "alice" in page for page in seen)
    assert "ValueError" in seen[-1]
    assert CANARY in operator.post(f"{address}/texts").text
    noted = rows.ask("SELECT who, act, subject FROM audit WHERE act <> 'logged_in'")
    assert noted == ("operator", "texts_shown", str(dead[0].user_id))


@pytest.mark.parametrize("named", ["{0.user_id}", "demo:alice", "alice"])
def test_a_user_is_found_by_id_and_by_name_and_the_address_has_no_name(
    operator: FlaskClient, accept: Accept, named: str
) -> None:
    accepted = accept("alice")
    found = operator.post("/ops/users", data={"who": named.format(accepted)})
    assert found.location == f"/ops/users/{accepted.user_id}"
    assert operator.post("/ops/users", data={"who": "nobody\x00"}).location == "/ops/users?note=nobody"


def test_who_may_only_look_sees_no_button_and_is_refused_every_act(
    web: Flask, onlooker: FlaskClient, rows: Rows, dead: list[Accepted]
) -> None:
    values = dict.fromkeys(("user_id", "message_id", "reply_id", "kept_id"), dead[0].user_id)
    routes = [rule for rule in web.url_map.iter_rules() if rule.endpoint.startswith("pages.")]
    acts = [rule for rule in routes if "POST" in (rule.methods or ()) and rule.endpoint not in pages.LOOKING]
    assert len(acts) == 6
    for rule in acts:
        for act in ("pause", "retry", "drop", "resend"):
            path = web.url_map.bind("localhost").build(rule.endpoint, values | {"act": act, "channel": "demo"}, "POST")
            assert onlooker.post(path).status_code == 403, path
    page = onlooker.get(f"/ops/users/{dead[0].user_id}").text + onlooker.get("/ops/dead").text
    assert "/acts/" not in page
    assert "/retry" not in page
    assert "(may look)" in page
    assert "Show texts" not in page
    assert rows.ask("SELECT array_agg(act) FROM audit") == (["logged_in"],)
    assert onlooker.post("/ops/users", data={"who": "alice"}).status_code == 303


def test_an_act_needs_the_logins_token(web: Flask, operator: FlaskClient, rows: Rows, accept: Accept) -> None:
    accepted = accept("alice")
    del operator.environ_base["HTTP_X_CSRFTOKEN"]
    assert operator.post(f"/ops/users/{accepted.user_id}/acts/pause").status_code == 403
    assert rows.user(accepted.user_id).paused_at is None


def test_an_answer_that_is_sent_twice_is_said_once(operator: FlaskClient, rows: Rows, accept: Accept) -> None:
    accepted = accept("alice")
    session = rows.session_of(accepted.user_id)
    said = {"text": "I am looking into it", "key": str(uuid4())}
    for _ in range(2):
        answer = operator.post(f"/ops/users/{accepted.user_id}/acts/answer", data=said)
        assert answer.location == f"/ops/users/{accepted.user_id}?note=answered"
    [reply] = rows.replies(accepted.user_id)
    assert (reply.text, reply.session_id) == (said["text"], session)
    noted = rows.ask("SELECT who, act, subject, detail FROM audit WHERE subject IS NOT NULL")
    assert noted == ("operator", "user_answered", str(accepted.user_id), {"reply_ids": [str(reply.id)]})


def test_of_two_operators_the_slower_ends_no_session_that_has_opened_since(
    operator: FlaskClient, rows: Rows, accept: Accept, services: Services
) -> None:
    user_id = accept("alice").user_id
    ended = services.database.row(
        "INSERT INTO conversation_sessions"
        " (user_id, started_at, last_message_at, sweep_at, status, ended_at, ended_reason)"
        " VALUES (%s, now(), now(), now(), 'ended', now(), 'operator') RETURNING id",
        (user_id,),
    )
    session = rows.session_of(user_id)
    assert ended
    late = operator.post(f"/ops/users/{user_id}/acts/end", data={"session": str(ended.id)})
    assert late.location == f"/ops/users/{user_id}?note=not-open"
    assert {one.id: one.status for one in rows.sessions(user_id)} == {ended.id: "ended", session: "active"}


def test_every_turn_is_shown_under_the_lease_that_settled_it(
    operator: FlaskClient, rows: Rows, dead: list[Accepted]
) -> None:
    user_id = dead[0].user_id
    page = operator.get(f"/ops/users/{user_id}").text
    shown = re.findall(r"leased by <code>(.+?)</code> \(fence (\d+)\)</li>\s+<li class=\"attempt", page)
    leases = "SELECT array_agg(lease ORDER BY seq) AS all FROM messages WHERE user_id = %s AND direction = 'in'"
    kept = rows.ask(leases, user_id).all
    assert [":".join(lease) for lease in shown] == kept
    assert len(kept) == 3
    assert kept[-1].endswith(f":{rows.user(user_id).fence}")


@pytest.mark.plants_a_bug
def test_an_incident_made_by_hand_is_seen_side_by_side_and_named(
    operator: FlaskClient, rows: Rows, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ANOMALIES_S", 5 * DEADLINE_S)
    user_id = accept("alice").user_id
    at = datetime(2026, 1, 17, 20, 39, 24, tzinfo=UTC)
    for nr, reason in enumerate(("timeout", "timeout")):
        rows.ask(
            "INSERT INTO conversation_sessions (user_id, started_at, last_message_at, sweep_at, status, ended_at,"
            " ended_reason) VALUES (%s, %s, %s, now(), 'ended', %s, %s) RETURNING id",
            user_id,
            at + timedelta(seconds=nr),
            at + timedelta(seconds=nr),
            at + timedelta(seconds=20),
            reason,
        )
    page = operator.get(f"/ops/users/{user_id}").text
    assert page.count('class="session ended overlaps"') == 2
    assert "opened_early" in page
    found = operator.get("/ops/anomalies").text
    assert "in the last 100 years" in found
    assert all(word in found for word in ("opened_early</th>", "overlap</th>", str(user_id)))


def test_the_overview_says_what_the_doctor_would(operator: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "QUICK_CHECK_S", DEADLINE_S)
    monkeypatch.setattr(examining, "QUICK_CHECKS_S", DEADLINE_S)
    page = operator.get("/ops/overview").text
    assert "workers: no worker is alive: messages are accepted and wait; start one" in page


def test_the_doctors_page_imports_no_bot(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onlyworkersimportme.py").write_text("def handle(turn): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examining, "CHECK_S", DEADLINE_S)
    monkeypatch.setattr(examining, "CHECKS_S", 2 * DEADLINE_S)
    page = operator_of(web_of(services, handler="onlyworkersimportme:handle")).post("/ops/doctor").text
    assert "one session</th>" in page
    assert "bots</th>" not in page
    assert "onlyworkersimportme" not in sys.modules


def test_a_check_of_lanes_has_time_to_settle_on_the_doctors_page_and_all_end_before_a_web_that_is_stopped() -> None:
    assert examining.CHECK_S > lane_checks.SETTLE_S + lane_checks.AGAIN_S + 1
    assert gunicorn_settings.graceful_timeout > examining.CHECKS_S + examining.CHECK_S


@pytest.mark.slow
def test_a_fault_of_the_lanes_is_shown_on_the_doctors_page(
    operator: FlaskClient, services: Services, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "CHECK_S", DEADLINE_S)
    monkeypatch.setattr(examining, "CHECKS_S", 2 * DEADLINE_S)
    user_id = accept("alice").user_id
    services.lanes.client.delete(keys.lanes())
    assert f"messages wait, but there is no lane: {user_id}" in operator.post("/ops/doctor").text


def test_checks_for_which_there_was_no_time_are_counted(operator: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "CHECKS_S", 0.0)
    page = operator.post("/ops/doctor").text
    assert f"There was no time for {len(WITHOUT_BOTS) - 1} more" in page
    assert "postgres</th>" in page


def test_the_checks_are_run_for_one_at_a_time(
    web: Flask, operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = Event(), Event()

    def look(_: object) -> Finding:
        begun.set()
        assert may_end.wait(20)
        return ok("looked")

    monkeypatch.setattr(examining, "WITHOUT_BOTS", (Check("slow", look),))
    monkeypatch.setattr(examining, "CHECK_S", 30.0)
    other = operator_of(web)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(operator.post, "/ops/doctor")
        try:
            assert begun.wait(20)
            assert "running already" in other.post("/ops/doctor").text
        finally:
            may_end.set()
        assert "slow</th>" in first.result().text
    assert "slow</th>" in other.post("/ops/doctor").text


def test_with_redis_away_the_overview_shows_what_postgres_knows(services: Services, settings: Settings) -> None:
    away = open_services(settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"}))
    now = glance(services.database, away.lanes, away.out_lanes)
    away.close()
    assert (now.turns, now.replies, now.trends) == (None, None, None)
    assert now.backlog is not None
    assert now.quarantined == 0


def test_the_last_hour_is_counted_by_minutes(services: Services) -> None:
    client = services.lanes.client
    minute = int(client.time()[0]) // 60
    client.lpush(keys.MINUTES, f'{minute - 2} {{"onelane_accepted:message": 3}}')
    client.lpush(keys.MINUTES, f'{minute - 1} {{"onelane_accepted:message": 10}}')
    services.lanes.add_numbers("p", 1, {"onelane_accepted:message": 12, "onelane_end_to_end_seconds:0.1": 1})
    went = last_hour(services.lanes)
    assert went.messages[-3:] in {(7, 0, 12), (0, 12, 0), (0, 0, 12)}  # the others where a minute has ended meanwhile
    assert max(went.wait_s) == 0.1
    services.lanes.add_numbers("p", 2, {"onelane_accepted:message": 1})
    assert client.llen(keys.MINUTES) <= 4
