"""`onelane run`: a worker dies in the middle of a turn, Redis forgets; what people and operators see of it."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from onelane.dev.embedded.child import wait_until
from onelane.dev.stack import PYTHON
from tests.integration.test_run import COMMAND, Run, start
from tests.web.test_pages_in_a_browser import shot

__all__ = ["start"]
WAIT_S = 60
BOT = """
import time
from pathlib import Path

def handle(turn):
    Path("begun").touch()
    while not Path("gate").exists():
        time.sleep(0.02)
    return f"you said: {turn.message.text}"
"""


def write(page: Page, text: str) -> None:
    page.get_by_label("Message of alice").fill(text)
    page.keyboard.press("Enter")


def press(page: Page, name: str, act: str) -> None:
    """Press a button, and wait until it is done."""
    with page.expect_response(f"**/try/acts/{act}"):
        page.get_by_role("button", name=name).click()


def deliver(run: Run, reply_id: str) -> None:
    """Play what a provider says of a reply that has arrived."""
    command = [*PYTHON, "onelane", "send", "--user", "alice", "--status", "delivered", "--reply", reply_id]
    subprocess.run(command, env={**os.environ, "ONELANE_DATA": str(run.data.path)}, timeout=WAIT_S, check=True)


@pytest.mark.slow
def test_a_workers_death_a_take_over_an_attempt_and_a_reply_are_read_in_order(
    start: Callable[..., Run], tmp_path: Path, chromium: Browser
) -> None:
    (tmp_path / "mybot.py").write_text(BOT)
    run = start((*COMMAND, "mybot:handle"), LOCK_TTL_S="6").until_ready()
    context = chromium.new_context(base_url=f"http://127.0.0.1:{run.port}")
    page, trying = context.new_page(), context.new_page()
    trying.goto("/try")
    write(trying, "hello")
    assert wait_until((tmp_path / "begun").exists, WAIT_S)
    press(trying, "Kill the worker now", "kill-worker")
    (tmp_path / "gate").touch()
    said = trying.locator(".out .bubble")
    expect(said).to_have_text(["you said: hello"], timeout=WAIT_S * 1000)
    page.goto("/ops/users")
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill(run.data.ops_password())  # as the banner has it
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/ops/users")
    page.get_by_role("row").nth(1).get_by_role("link").click()
    lines = page.get_by_role("region", name="session 1").get_by_role("listitem")
    expect(lines).to_have_count(6, timeout=WAIT_S * 1000)  # it keeps itself current
    expect(lines.nth(5)).to_contain_text("sent", timeout=WAIT_S * 1000)
    deliver(run, (lines.nth(5).get_attribute("id") or "").removeprefix("m"))
    expect(lines.nth(5)).to_contain_text("delivered", timeout=WAIT_S * 1000)
    read = lines.all_inner_texts()
    leased, taken = (re.search(r"by (\S+) \(fence (\d+)\)", read[nr]) for nr in (1, 3))
    assert leased
    assert taken
    assert leased[1] != taken[1]
    assert int(leased[2]) < int(taken[2])
    assert read[2].startswith(f"{leased[1]} died")
    assert "attempt 1 committed" in read[4]
    write(trying, "again")
    expect(lines).to_have_count(10, timeout=WAIT_S * 1000)
    expect(lines.nth(7)).to_contain_text(re.compile(rf"leased by {re.escape(taken[1])} \(fence \d+\)"))
    shot(page, "user")
    press(trying, "Forget Redis now", "forget-redis")
    write(trying, "and now?")
    expect(said).to_have_text(["you said: hello", "you said: again", "you said: and now?"], timeout=WAIT_S * 1000)
    expect(trying.locator(".border")).to_have_count(1)
    shot(trying, "try")
