"""Operators with and without a browser, and a lane with dead messages for them to look at."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright
from werkzeug.serving import make_server

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Accepted
from tests.conftest import Accept
from tests.door import CANARY, PASSWORD, operator_of, web_of
from tests.rows import Rows
from tests.working_off import work_off

CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ANSWER_MS = 20_000
expect.set_options(timeout=ANSWER_MS)


@pytest.fixture
def redis(services: Services) -> redis_py.Redis:
    return services.lanes.client


@pytest.fixture
def web(services: Services) -> Flask:
    return web_of(services)


@pytest.fixture
def operator(web: Flask) -> FlaskClient:
    return operator_of(web)


@pytest.fixture
def dead(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Accepted]:
    """Three messages of alice of which the first two are dead, and one of bob, answered. No worker runs."""
    monkeypatch.setenv("BOT_LOG", str(tmp_path / "runs"))
    settings = settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 1})
    messages = [accept("alice", f"raise {CANARY}"), accept("alice", f"raise {CANARY} too"), accept("alice", "well")]
    accept("bob", "hello")
    work_off(services, settings)
    assert (rows.count("dead"), rows.count("processed")) == (2, 2)
    return messages


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Name the file for which a bot waits; whatever became of the test, no bot waits for ever."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start Chromium. Without one, tests say what to install; where nobody would read that, they fail."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        needed = "no Chromium: apt-get install chromium, or name one in CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(needed)
        pytest.skip(needed)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*CHROMIUM_FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def address(web: Flask) -> Iterator[str]:
    """Serve the web over real HTTP."""
    server = make_server("127.0.0.1", 0, web, threaded=True)
    thread = threading.Thread(target=server.serve_forever, name="web")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    """Open a tab of a browser that knows no cookie; fail when anything in it ran that must not, or broke."""
    context = chromium.new_context(base_url=address, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(ANSWER_MS)
    page = context.new_page()
    wrong: list[str] = []

    def refuse(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("console", lambda line: wrong.append(f"console: {line.text}") if _is_wrong(line) else None)
    yield page
    context.close()
    assert wrong == []


def _is_wrong(line: ConsoleMessage) -> bool:
    """Whether a page says that it is broken; that it was refused something is what some tests are about."""
    was_refused = "Failed to load resource" in line.text and "/try" not in line.location["url"]
    return line.type == "error" and not was_refused


@pytest.fixture
def inside(page: Page) -> Page:
    """Log in as a person does."""
    page.goto("/ops/rq/")
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/ops/rq/")
    return page
