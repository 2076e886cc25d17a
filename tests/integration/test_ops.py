"""The operator's door: who gets in, how often one may try, and what another site's page cannot do."""

import json
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from onelane.bootstrap import Services, open_services
from onelane.cli import onelane
from onelane.dev.embedded.redis import free_port
from onelane.doctor.finding import Deployment, Health
from onelane.doctor.operators import addresses_are_known
from onelane.operators import OpsUser, hashed
from onelane_web import create_app
from onelane_web.ops import attempts, logins
from tests.door import LOGIN, PASSWORD, operator_of, try_to_log_in, web_of

OPEN = {"health.alive", "health.ready", "webhook.receive", "ops.form", "ops.login"}
REQUEUE_ALL = "/ops/rq/requeue/user:nobody"


@pytest.fixture
def web(services: Services) -> Flask:
    return web_of(services)


@pytest.fixture
def operator(web: Flask) -> FlaskClient:
    return operator_of(web)


@pytest.mark.parametrize("path", ["/ops", "/ops/", LOGIN, "/ops/rq", "/ops/rq/", "/ops/rq/0/data/queues.json"])
def test_without_a_password_there_is_no_door(services: Services, path: str) -> None:
    assert services.settings.ops_password is None
    client = create_app(services).test_client()
    assert client.get(path).status_code == 404
    assert client.post(path).status_code == 404


def test_the_url_map_has_no_route_open_to_strangers_but_health_and_signed_webhooks(services: Services) -> None:
    app = web_of(services, development=False, metrics_token=SecretStr("for the scraper alone"))
    values = {"queue": "q", "queue_name": "q", "registry": "queued", "registry_name": "queued", "per_page": 8}
    values |= {"order": "asc", "page": 1, "job_id": "j", "filename": "css/main.css", "channel": "demo"}
    values |= dict.fromkeys(("user_id", "message_id", "reply_id", "kept_id"), uuid4()) | {"act": "drop"}
    asked = 0
    for rule in app.url_map.iter_rules():
        path = app.url_map.bind("localhost").build(rule.endpoint, values, append_unknown=False)
        for method in sorted(rule.methods or ()):
            asked += 1
            if rule.endpoint in OPEN:
                continue
            status = app.test_client().open(path, method=method).status_code
            is_metrics_preflight = rule.endpoint.startswith("numbers.") and method == "OPTIONS"
            assert status == 401 or is_metrics_preflight, f"{method} {path} answered {status}"
    assert asked > 30
    assert {rule.endpoint for rule in app.url_map.iter_rules()} >= OPEN
    assert app.test_client().post("/webhooks/demo", json={"sender": "x", "text": "y"}).status_code == 401


@pytest.mark.parametrize(
    "path", ["/ops/nothing", "/ops/rq/nothing", "/ops/rq/static/nothing", "/ops/../ops/rq/", "/ops"]
)
def test_a_stranger_does_not_learn_what_there_is(web: Flask, path: str) -> None:
    client = web.test_client()
    assert client.get(path).status_code == 401
    at_the_form = client.get(path, headers={"Accept": "text/html,*/*"})
    assert at_the_form.status_code == 303
    assert urlsplit(at_the_form.location).path == LOGIN


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("operator", ""),
        ("", PASSWORD),
        ("operator", PASSWORD + "x"),
        ("operator", PASSWORD[:-1]),
        ("Operator", PASSWORD),
        ("operator", "\u00fc\u0000\ud83d"),
        ("operator", "x" * 100_000),
    ],
)
def test_a_wrong_name_or_password_is_refused_in_one_word(web: Flask, user: str, password: str) -> None:
    client = web.test_client()
    answer = client.post(LOGIN, data={"user": user, "password": password.encode(errors="surrogatepass")})
    assert answer.status_code == 401
    assert "Wrong name or password." in answer.text
    assert "Set-Cookie" not in answer.headers
    assert client.get("/ops/").status_code == 401


def test_the_right_password_opens_with_a_cookie_that_no_script_and_no_other_site_can_use(services: Services) -> None:
    client = web_of(services, development=False).test_client()
    answer = try_to_log_in(client)
    assert answer.status_code == 303
    cookies = {cookie.partition("=")[0]: cookie for cookie in answer.headers.getlist("Set-Cookie")}
    for cookie in cookies.values():
        assert {"Secure", "SameSite=Strict", "Path=/ops"} <= set(cookie.split("; "))
    assert "HttpOnly" in cookies[logins.COOKIE]
    assert "HttpOnly" not in cookies[logins.TOKEN_COOKIE]
    assert client.get("/ops/").status_code == 302


def cookie_of(operator: FlaskClient) -> str:
    cookie = operator.get_cookie(logins.COOKIE, path="/ops")
    assert cookie is not None
    return cookie.value


def test_in_development_the_cookie_also_goes_over_http(web: Flask) -> None:
    answer = try_to_log_in(web.test_client())
    assert not any("Secure" in cookie for cookie in answer.headers.getlist("Set-Cookie"))


def test_a_login_ends_in_time_with_the_password_with_the_key_and_when_told(services: Services, web: Flask) -> None:
    operator = operator_of(web)
    cookie = cookie_of(operator)
    assert opens(web_of(services), cookie)  # another process
    assert not opens(web_of(services, ops_password=SecretStr("another")), cookie)
    assert not opens(web_of(services, ops_user="another"), cookie)
    assert not opens(web_of(services, secret_key=SecretStr("given")), cookie)
    assert not opens(web, cookie[:-2] + ("xx" if cookie[-2:] != "xx" else "yy"))
    assert not opens(web, "")
    late = cookie_of(operator_of(web))
    services.database.rows("UPDATE operator_logins SET ends_at = now() WHERE digest = %s", (logins.digest_of(late),))
    assert not opens(web, late)
    assert opens(web, cookie)
    assert operator.post("/ops/logout").status_code == 303
    assert operator.get("/ops/").status_code == 401
    assert not opens(web, cookie)  # somebody had copied it


def opens(web: Flask, cookie: str) -> bool:
    client = web.test_client()
    client.set_cookie(logins.COOKIE, cookie, path="/ops")
    return client.get("/ops/").status_code == 302


def test_an_address_may_try_a_few_times_over_all_processes_and_then_waits(services: Services, web: Flask) -> None:
    for nr in range(attempts.PER_ADDRESS_MAX):
        process = web if nr % 2 else web_of(services)
        assert try_to_log_in(process.test_client(), "wrong").status_code == 401
    late = try_to_log_in(web.test_client())  # even with the right password
    assert late.status_code == 429
    assert 0 < int(late.headers["Retry-After"]) <= attempts.WINDOW_S
    assert try_to_log_in(web.test_client(), address="10.0.0.2").status_code == 303
    counters = services.lanes.client.keys("ops:*")
    assert counters
    assert all(0 < services.lanes.client.ttl(key) <= attempts.KNOWN_S for key in counters)
    assert not any(b"10.0.0" in key for key in counters)


def test_a_success_forgets_the_failures_before_it(web: Flask) -> None:
    for _ in range(3):
        for _ in range(attempts.PER_ADDRESS_MAX - 1):
            assert try_to_log_in(web.test_client(), "wrong").status_code == 401
        assert try_to_log_in(web.test_client()).status_code == 303


def test_one_subscriber_with_many_addresses_is_one(web: Flask) -> None:
    for nr in range(attempts.PER_ADDRESS_MAX):
        assert try_to_log_in(web.test_client(), "wrong", address=f"2001:db8:1:2::{nr + 1:x}").status_code == 401
    assert try_to_log_in(web.test_client(), "wrong", address="2001:db8:1:2:ffff::1").status_code == 429
    assert try_to_log_in(web.test_client(), "wrong", address="2001:db8:1:3::1").status_code == 401


@pytest.mark.slow
def test_one_site_with_many_networks_is_one(web: Flask) -> None:
    for nr in range(attempts.PER_SITE_MAX):
        assert try_to_log_in(web.test_client(), "wrong", address=f"2001:db8:1:{nr:x}::1").status_code == 401
    assert try_to_log_in(web.test_client(), "wrong", address="2001:db8:1:ffff::1").status_code == 429
    assert try_to_log_in(web.test_client(), "wrong", address="2001:db8:2::1").status_code == 401


@pytest.mark.parametrize("form", ["10.3.3.3:{}", "[2001:db8::1]:{}", "::ffff:10.3.3.3", "fe80::1%eth{}", "unknown-{}"])
def test_an_address_is_the_same_with_a_port_and_in_another_form(web: Flask, form: str) -> None:
    tries = [
        try_to_log_in(web.test_client(), "wrong", address=form.format(nr)).status_code
        for nr in range(attempts.PER_ADDRESS_MAX + 1)
    ]
    assert tries == [401] * attempts.PER_ADDRESS_MAX + [429]
    if "10.3.3.3" in form:
        assert try_to_log_in(web.test_client(), "wrong", address="10.3.3.3").status_code == 429


def test_while_many_networks_try_the_right_password_gets_in_slowed(
    services: Services, web: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert try_to_log_in(web.test_client(), address="10.9.9.9").status_code == 303
    many = attempts.Attempts(services.lanes.client)
    assert {many.wait_s(f"10.1.{nr}.1") for nr in range(attempts.ALL_MAX - 1)} == {0}
    assert try_to_log_in(web.test_client(), address="10.9.9.9").status_code == 303  # it has logged in before
    for _ in range(2):
        slowed = try_to_log_in(web.test_client(), address="10.2.2.2")
        assert slowed.status_code == 429
        assert 0 < int(slowed.headers["Retry-After"]) <= attempts.SLOW_S
    monkeypatch.setattr(attempts, "SLOW_S", 0)
    assert try_to_log_in(web.test_client(), address="10.2.2.2").status_code == 303


def test_while_redis_is_away_nobody_logs_in_and_who_is_in_stays_in(services: Services, web: Flask) -> None:
    cookie = cookie_of(operator_of(web))
    away = open_services(services.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"}))
    web = web_of(away)
    answer = try_to_log_in(web.test_client())
    assert answer.status_code == 503
    assert "Redis" in answer.text
    assert answer.headers["Retry-After"]
    assert opens(web, cookie)
    client = web.test_client()
    client.set_cookie(logins.COOKIE, cookie, path="/ops")
    assert client.get("/ops/rq/").status_code == 200
    assert client.get("/ops/rq/0/data/queues.json").status_code == 503
    away.close()


@pytest.mark.parametrize(
    "target",
    [
        "//evil.test/",
        "https://evil.test/ops/",
        "/\\evil.test",
        "/ops/\\..\\evil",
        "javascript:alert(1)",
        "/",
        "ops/",
        "/ops/\n",
        "//[",
        "//\u2100.test",
    ],
)
def test_after_the_login_one_stays_here(web: Flask, target: str) -> None:
    answer = web.test_client().post(
        LOGIN, query_string={"next": target}, data={"user": "operator", "password": PASSWORD}
    )
    assert answer.status_code == 303
    assert answer.location == "/ops/"


def test_after_the_login_one_sees_what_one_asked_for(web: Flask) -> None:
    client = web.test_client()
    asked = "/ops/rq/0/view/jobs/user:x/failed/8/asc/1"
    at_the_form = client.get(asked, headers={"Accept": "text/html"})
    answer = client.post(at_the_form.location, data={"user": "operator", "password": PASSWORD})
    assert answer.location == asked


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRFToken": ""},
        {"X-CSRFToken": "guessed"},
        {"X-CSRFToken": "\u00fc"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://\u2100.test".encode().decode("latin-1")},
        {"Origin": "http://localhost.evil.test"},
    ],
)
def test_another_sites_page_changes_nothing(operator: FlaskClient, headers: dict[str, Any]) -> None:
    assert operator.post(REQUEUE_ALL).status_code == 200
    assert operator.post(REQUEUE_ALL, headers={"Origin": "http://localhost"}).status_code == 200
    assert operator.post(REQUEUE_ALL, headers=headers).status_code == 403
    if "X-CSRFToken" not in headers:
        assert operator.post(LOGIN, headers=headers).status_code == 403


def test_the_token_of_one_login_is_no_good_in_another(web: Flask, operator: FlaskClient) -> None:
    other = operator_of(web).environ_base["HTTP_X_CSRFTOKEN"]
    assert operator.post(REQUEUE_ALL, headers={"X-CSRFToken": other}).status_code == 403


@pytest.mark.parametrize("path", [LOGIN, "/ops/", "/ops/rq/", "/ops/rq/0/data/queues.json", "/ops/nothing"])
@pytest.mark.parametrize("who", ["stranger", "operator"])
def test_every_answer_behind_the_door_is_hardened(web: Flask, operator: FlaskClient, path: str, who: str) -> None:
    headers = (operator if who == "operator" else web.test_client()).get(path).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    scripts = next((part for part in policy.split("; ") if part.startswith("script-src")), "")
    assert "unsafe-inline" not in scripts


def test_the_nonce_is_another_in_every_answer(operator: FlaskClient) -> None:
    policies = {operator.get("/ops/rq/").headers["Content-Security-Policy"] for _ in range(3)}
    assert len(policies) == 3


ANN, LEE = "ann's own password", "lee's own password"
SEVERAL = {"ann": OpsUser(password=hashed(ANN), role="act"), "lee": OpsUser(password=hashed(LEE))}


def test_each_of_several_operators_has_a_password_and_a_role(services: Services) -> None:
    web = web_of(services, ops_password=None, ops_users=SEVERAL)
    ann, lee = operator_of(web, "ann", ANN), operator_of(web, "lee", LEE)
    assert [who.get("/ops/rq/0/data/queues.json").status_code for who in (ann, lee)] == [200, 200]
    assert [who.post(REQUEUE_ALL).status_code for who in (ann, lee)] == [200, 403]
    audit = services.database.rows("SELECT who, act FROM audit ORDER BY nr")
    assert audit == [("ann", "logged_in"), ("lee", "logged_in"), ("ann", "jobs_requeued")]
    assert lee.post("/ops/logout").status_code == 303
    for user, password in (("ann", LEE), ("lee", ANN), ("bob", ANN), ("operator", PASSWORD)):
        assert try_to_log_in(web.test_client(), password, user=user).status_code == 401


def test_who_is_taken_out_of_the_settings_is_logged_out_and_a_role_counts_at_once(services: Services) -> None:
    ann = cookie_of(operator_of(web_of(services, ops_users=SEVERAL), "ann", ANN))
    assert opens(web_of(services, ops_users=SEVERAL), ann)
    assert not opens(web_of(services, ops_users={"lee": SEVERAL["lee"]}), ann)
    assert not opens(web_of(services, ops_users={"ann": OpsUser(password=hashed(LEE))}), ann)


def test_the_hash_that_the_command_prints_opens_the_door(services: Services) -> None:
    made = CliRunner().invoke(onelane, ["ops", "hash", "ann", "--role", "act"], input=f"{ANN}\n{ANN}\n")
    entry = json.loads(made.stdout.splitlines()[-1])
    assert ANN not in made.stdout
    web = web_of(services, ops_password=None, ops_users={"ann": OpsUser(**entry["ann"])})
    assert operator_of(web, "ann", ANN).post(REQUEUE_ALL).status_code == 200
    short = CliRunner().invoke(onelane, ["ops", "hash", "ann"], input="short\nshort\n")
    assert short.exit_code == 1


def test_behind_a_proxy_that_is_not_counted_the_doctor_warns(services: Services) -> None:
    settings = services.settings.model_copy(update={"ops_password": SecretStr(PASSWORD)})
    deployment = Deployment(settings, services.database, services.lanes)
    for headers, health in (({}, Health.OK), ({"X-Forwarded-For": "10.0.0.1"}, Health.WARNING)):
        web_of(services).test_client().get(LOGIN, headers=headers)
        assert addresses_are_known(deployment).health is health


def test_while_postgres_is_away_nobody_is_known(services: Services, web: Flask) -> None:
    cookie = cookie_of(operator_of(web))
    away = open_services(
        services.settings.model_copy(update={"database_url": f"postgresql://127.0.0.1:{free_port()}/none"})
    )
    client = web_of(away).test_client()
    assert try_to_log_in(client).status_code == 503
    client.set_cookie(logins.COOKIE, cookie, path="/ops")
    assert client.get("/ops/rq/").status_code == 503
    away.close()
