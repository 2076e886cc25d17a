"""The operator's way in a real browser: log in, look, press Requeue, see the message answered."""

import os
import re
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect
from redis import Redis

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Accepted
from tests.conftest import Accept, RunWorker, eventually
from tests.door import CANARY, PASSWORD
from tests.rows import Rows

SHOTS = os.environ.get("SCREENSHOTS")
"""A folder to put pictures into, for a person to look at."""


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def test_a_wrong_password_is_told_and_the_right_one_leads_to_what_was_asked_for(page: Page) -> None:
    page.goto("/ops/rq/0/view/workers")
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("Wrong name or password.")
    shot(page, "login")
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/ops/rq/0/view/workers")
    expect(page.get_by_text("No workers.")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/ops/login")
    page.goto("/ops/rq/0/view/workers")
    expect(page.get_by_label("Password")).to_be_visible()


@pytest.mark.slow
def test_the_queues_of_users_with_waiting_messages_and_a_worker_with_its_lane(
    inside: Page, settings: Settings, accept: Accept, run_worker: RunWorker, gate: Path
) -> None:
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle", "worker_slots": 1})):
        first = accept("alice", f"wait {gate}")
        inside.goto("/ops/rq/0/view/workers")
        busy = inside.locator("tr[data-role=worker]")
        expect(busy.locator("[data-role=state]")).to_have_text("busy")
        expect(busy).to_contain_text(keys.queue_name(first.user_id))
        shot(inside, "workers")
        waiting = [first, accept("bob", "hello"), accept("bob", "again"), accept("carol", "hi")]
        inside.get_by_role("link", name="Queues").click()
        rows = inside.locator("tr[data-role=queue]")
        expect(rows).to_have_count(3)
        bob = rows.filter(has_text=str(waiting[1].user_id))
        expect(bob.locator("td").nth(1)).to_have_text("2")
        shot(inside, "queues")
        bob.locator("a").first.click()
        expect(inside.locator("tr[data-role=job]")).to_have_count(2)
        expect(inside.locator("tr[data-role=job]").first).to_contain_text(f"turn {waiting[1].message_id}")
        shot(inside, "waiting")
        gate.touch()
        inside.get_by_role("link", name="Queues").click()
        expect(inside.get_by_text("No queues.")).to_be_visible()


@pytest.mark.slow
def test_requeue_in_the_list_and_on_the_jobs_page_gets_the_messages_answered(
    rows: Rows, inside: Page, services: Services, settings: Settings, dead: list[Accepted], run_worker: RunWorker
) -> None:
    queue = keys.queue_name(dead[0].user_id)
    inside.reload()
    inside.locator("tr[data-role=queue]").filter(has_text=queue).locator("td").nth(6).locator("a").click()
    jobs = inside.locator("tr[data-role=job]")
    expect(jobs).to_have_count(2)
    expect(jobs.first.locator("pre.exc_info")).to_contain_text("ValueError")
    assert CANARY not in inside.content()
    shot(inside, "failed")
    for message in dead[:2]:
        rows.rewrite(message.message_id, "well again")
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle"})):
        jobs.filter(has_text=str(dead[0].message_id)).get_by_text("Requeue").click()
        expect(inside.get_by_role("status")).to_contain_text("Requeued.")
        expect(jobs).to_have_count(1)
        shot(inside, "requeued")
        eventually(lambda: rows.count("processed") == 3)
        inside.get_by_role("link", name=str(dead[1].message_id)).click()
        expect(inside.locator("pre.exc_info")).to_contain_text("tests/bots.py")
        shot(inside, "job")
        inside.get_by_role("button", name="Requeue").click()
        expect(inside.get_by_role("status")).to_contain_text("Requeued.")
        eventually(lambda: rows.count("processed") == 4)
        expect(inside.get_by_role("status")).to_contain_text("This job is gone")
    assert rows.texts(dead[0].user_id).count("well again") == 2


def test_requeue_all_asks_and_then_does(inside: Page, services: Services, dead: list[Accepted]) -> None:
    queue = keys.queue_name(dead[0].user_id)
    inside.goto(f"/ops/rq/0/view/jobs/{queue}/failed/8/asc/1")
    inside.get_by_role("link", name="Requeue All").click()
    inside.get_by_role("button", name="No").click()
    expect(inside.locator("#confirmation-modal")).to_be_hidden()
    inside.reload()
    expect(inside.locator("tr[data-role=job]")).to_have_count(2)
    assert services.lanes.jobs(dead[0].user_id) == []
    inside.get_by_role("link", name="Requeue All").click()
    shot(inside, "sure")
    inside.get_by_role("button", name="Yes").click()
    expect(inside.get_by_role("status")).to_contain_text("Requeued.")
    assert len(services.lanes.jobs(dead[0].user_id)) == 2


def test_there_is_no_button_that_deletes_and_a_refusal_is_told(
    inside: Page, redis: Redis, dead: list[Accepted]
) -> None:
    queue = keys.queue_name(dead[0].user_id)
    inside.goto(f"/ops/rq/0/view/jobs/{queue}/failed/8/asc/1")
    expect(inside.locator("tr[data-role=job]")).to_have_count(2)
    for word in ("Delete", "Empty", "Compact"):
        expect(inside.get_by_text(re.compile(word, re.IGNORECASE)).locator("visible=true")).to_have_count(0)
    redis.hdel(keys.job(dead[0].message_id), "buried")
    inside.locator("tr[data-role=job]").filter(has_text=str(dead[0].message_id)).get_by_text("Requeue").click()
    expect(inside.get_by_role("status")).to_contain_text("Not requeued: this job is not a dead message of ours")


@pytest.mark.slow
def test_a_page_left_open_leads_back_to_the_door(inside: Page) -> None:
    inside.context.clear_cookies()
    inside.wait_for_url(re.compile(r"/ops/login\?next="))  # at its next poll


def test_another_sites_page_cannot_press_the_buttons(
    inside: Page, chromium: Browser, web: Flask, address: str, services: Services, dead: list[Accepted]
) -> None:
    """The browser itself keeps the cookie from a form of another site, and tells where the form is from."""
    queue = keys.queue_name(dead[0].user_id)
    elsewhere = address.replace("127.0.0.1", "localhost")
    inside.route(f"{elsewhere}/**", lambda route: route.fulfill(content_type="text/html", body=_trap(address, queue)))
    inside.goto(f"{elsewhere}/trap")
    inside.wait_for_url(f"{address}/ops/rq/requeue/{queue}")
    assert "forbidden" in inside.content()
    assert services.lanes.jobs(dead[0].user_id) == []
    # Nor can a script of that site read the token.
    inside.goto(f"{elsewhere}/trap?still")
    assert inside.evaluate("document.cookie") == ""


def _trap(address: str, queue: str) -> str:
    send = "if (!location.search) document.forms[0].submit()"
    return f"<form method=post action='{address}/ops/rq/requeue/{queue}'></form><script>{send}</script>"


def test_another_sites_page_cannot_frame_ours(inside: Page, address: str) -> None:
    elsewhere = address.replace("127.0.0.1", "localhost")
    inside.route(
        f"{elsewhere}/**",
        lambda route: route.fulfill(content_type="text/html", body=f"<iframe src='{address}/ops/login'></iframe>"),
    )
    inside.goto(f"{elsewhere}/frame")
    expect(inside.frame_locator("iframe").get_by_label("Password")).to_have_count(0)
