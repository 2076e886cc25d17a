"""The page to try a bot, as a person uses it in a browser."""

import json
import subprocess
from collections.abc import Iterator
from socket import gethostname

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.processes.registration import Registration
from onelane_web import create_app
from onelane_web.development.trying import HEADER
from tests.working_off import work_off


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"development": True, "try_acts": ("kill-worker", "forget-redis")})


@pytest.fixture
def web(services: Services) -> Flask:
    return create_app(services)


@pytest.fixture
def client(web: Flask) -> FlaskClient:
    client = web.test_client()
    client.environ_base["HTTP_HOST"] = "127.0.0.1:8000"
    return client


def channel_of(services: Services) -> str:
    return next(iter(services.settings.channels))


def test_five_at_once_are_one_session_in_order(services: Services, page: Page, settings: Settings) -> None:
    page.goto("/try")
    page.get_by_label("Channel").select_option(channel_of(services))
    page.get_by_label("Message of alice").fill("hello")
    page.get_by_role("button", name="Send five at once").click()
    expect(page.locator(".in")).to_have_count(5)
    work_off(services, settings)
    expect(page.locator(".out")).to_have_count(5)
    said = page.locator(".in .bubble").all_inner_texts()
    assert sorted(said) == [f"hello {number}" for number in range(1, 6)]
    assert page.locator(".out .bubble").all_inner_texts() == said
    assert page.locator(".border").count() == 1


def test_hostile_texts_are_shown_as_texts(services: Services, page: Page, settings: Settings) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page.goto("/try")
    page.get_by_label("Channel").select_option(channel_of(services))
    page.get_by_label("Message of alice").fill(hostile)
    page.keyboard.press("Enter")
    expect(page.locator(".in .bubble")).to_have_text(hostile)
    work_off(services, settings)
    expect(page.locator(".out .bubble")).to_have_text(hostile)


def test_a_second_person_stands_beside_the_first(page: Page) -> None:
    page.goto("/try")
    page.get_by_label("Person").fill("bob")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="bob")).to_be_visible()
    expect(page.get_by_role("heading", name="alice")).to_be_visible()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/try/messages", {}, 403),
        ("/try/acts/forget-redis", {}, 403),
        ("/try/messages", {HEADER: "1", "Host": "evil.example"}, 403),
        ("/try/acts/other", {HEADER: "1"}, 404),
    ],
)
def test_no_other_site_can_act(client: FlaskClient, path: str, headers: dict[str, str], status: int) -> None:
    assert client.post(path, json={}, headers=headers).status_code == status


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000"])
def test_under_another_name_there_is_nothing_to_read(client: FlaskClient, host: str) -> None:
    assert client.get("/try", headers={"Host": host}).status_code == 403


def test_a_state_that_has_not_changed_is_not_sent_again(client: FlaskClient, services: Services) -> None:
    first = client.get(f"/try/state?channel={channel_of(services)}&user=alice")
    again = client.get(
        f"/try/state?channel={channel_of(services)}&user=alice", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (first.status_code, again.status_code) == (200, 304)


@pytest.mark.parametrize("played", [{}, {"channel": "x", "user": ""}, {"channel": "x", "user": "a", "count": 1000}, []])
def test_what_cannot_be_played_is_refused(client: FlaskClient, played: object) -> None:
    answer = client.post(
        "/try/messages", data=json.dumps(played), headers={HEADER: "1", "Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.get_json()["error"]


def test_outside_development_there_is_no_such_page(services: Services) -> None:
    object.__setattr__(services, "settings", services.settings.model_copy(update={"development": False}))
    assert create_app(services).test_client().get("/try").status_code == 404


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_worker_is_killed_as_by_a_crash(
    client: FlaskClient, services: Services, sleeper: subprocess.Popen[bytes]
) -> None:
    name = f"onelane.{gethostname()}.{sleeper.pid}.0a1b2c3d"
    Registration(services.lanes.client, name, services.lanes.roster.note, lambda: "").beat([])
    assert client.post("/try/acts/kill-worker", headers={HEADER: "1"}).get_json() == {"done": "killed 1"}
    assert sleeper.wait(10) == -9
