"""The page to try a bot, as a person uses it in a browser."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Locator, Page, expect

from onelane import Button, Reply, Turn
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.processes.registration import Registration
from onelane_web import create_app
from onelane_web.development.trying import HEADER
from tests.accessible import serious_faults
from tests.web.test_hostile import HOSTILE, is_clean
from tests.working_off import work_off

STEPS_MAX = 30


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    return tmp_path / "problem.txt"


@pytest.fixture
def settings(settings: Settings, problem_file: Path) -> Settings:
    acts = ("kill-worker", "forget-redis")
    changes = {"development": True, "try_acts": acts, "try_problem_file": str(problem_file)}
    return settings.model_copy(update=changes)


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
    assert serious_faults(page) == []
    assert page.locator(".border").count() == 1


def ask(turn: Turn) -> Reply | str:
    """Say what was said, with a button and a tool of that name."""
    if turn.message.button:
        return f"pressed {turn.message.button}"
    with turn.tool(turn.message.text, {}) as use:
        use.output = {turn.message.text: turn.message.text}
    return Reply(turn.message.text, buttons=[Button(id="fr", title=turn.message.text)])


def test_hostile_texts_are_shown_as_texts(
    services: Services, page: Page, settings: Settings, problem_file: Path
) -> None:
    problem_file.write_text("\n".join(HOSTILE))
    page.goto("/try")
    page.get_by_label("Channel").select_option(channel_of(services))
    page.get_by_label("Person").fill(HOSTILE[0])
    page.keyboard.press("Enter")
    for hostile in HOSTILE:
        page.get_by_label("Message of alice").fill(hostile)
        page.keyboard.press("Enter")
    expect(page.locator(".in")).to_have_count(len(HOSTILE))
    work_off(services, settings, ask)
    expect(page.locator(".out")).to_have_count(len(HOSTILE))
    assert set(page.locator(".out .bubble").all_text_contents()) == set(HOSTILE)
    assert set(page.locator(".choices button").all_text_contents()) == set(HOSTILE)
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    expect(page.get_by_role("alert").first).to_contain_text(HOSTILE[1])
    assert is_clean(page), page.content()


def test_the_keyboard_is_enough_and_keeps_its_place_when_something_is_new(
    services: Services, page: Page, settings: Settings
) -> None:
    page.goto("/try")
    page.get_by_label("Channel").select_option(channel_of(services))
    page.get_by_label("Message of alice").focus()
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(page.locator(".in")).to_have_count(1)
    work_off(services, settings, ask)
    press(page, "Shift+Tab", page.get_by_role("button", name="hello"))
    page.keyboard.press("Enter")
    expect(page.locator(".in")).to_have_count(2)
    press(page, "Shift+Tab", page.locator("summary"))
    page.keyboard.press("Space")
    work_off(services, settings, ask)
    expect(page.locator(".out")).to_have_count(2)
    expect(page.locator("summary")).to_be_focused()
    expect(page.locator("details pre")).to_be_visible()
    press(page, "Tab", page.get_by_role("button", name="Send five at once"))
    page.keyboard.press("Space")
    expect(page.locator(".in")).to_have_count(7)


def press(page: Page, key: str, until: Locator) -> None:
    """Go on with the keyboard until something has the focus."""
    expect(until).to_be_visible()
    for _ in range(STEPS_MAX):
        page.keyboard.press(key)
        if until.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"{key} does not lead to {until}")


@pytest.mark.slow
def test_a_change_that_does_not_run_is_shown_until_it_is_mended(page: Page, problem_file: Path) -> None:
    problem_file.write_text("mybot.py, line 5: invalid syntax")
    page.goto("/try")
    shown = page.get_by_role("alert").filter(has_text="mybot.py, line 5")
    expect(shown).to_contain_text("Your change does not run; the bot as it was goes on.")
    assert serious_faults(page) == []
    problem_file.unlink()
    expect(shown).to_have_count(0)


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
