"""The operator's pages as a person uses them: every page, every button, and what hostile texts do there."""

import json
import math
import os
import re
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Browser, Page, expect

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Accepted
from tests.accessible import serious_faults
from tests.conftest import Accept, RunWorker
from tests.door import CANARY, PASSWORD
from tests.rows import Rows
from tests.web.test_hostile import HOSTILE, is_clean
from tests.working_off import work_off

SHOTS = os.environ.get("SCREENSHOTS")
"""A folder to put pictures into, for a person to look at."""
PAGES = ("overview", "users", "replies", "dead", "quarantine", "anomalies", "doctor")

PLANTED = (
    """
    UPDATE inbox
       SET button = %(x)s, last_error = %(x)s, attempts = 1, event = %(x)s,
           parts = jsonb_build_object('x', %(x)s::text),
           redriven_at = now(), session_id = %(session)s, attachments = jsonb_build_array(jsonb_build_object(
           'kind', 'image', 'url', %(x)s::text, 'name', %(x)s::text))
    """,
    """
    INSERT INTO messages (user_id, session_id, direction, seq, turn_seq, state, channel, text, last_error, accepted_at)
    VALUES (%(user)s, %(session)s, 'in', 9, 9, 'dead', %(x)s, %(x)s, %(x)s, now())
    """,
    """
    INSERT INTO tool_calls (user_id, session_id, message_id, call_id, name, arguments, output)
    SELECT user_id, session_id, id, 'c', %(x)s, jsonb_build_object('x', %(x)s::text), to_jsonb(%(x)s::text)
      FROM messages
    """,
    """
    INSERT INTO takeovers (user_id, message_id, fence, token, taken_from)
    SELECT user_id, id, 2, %(x)s || ':1', %(x)s FROM messages
    """,
)
"""One hostile string in all that others can write."""


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"ops-{name}.png", full_page=True)


def log_in(page: Page) -> None:
    page.goto("/ops/overview")
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/ops/overview")


@pytest.fixture
def desk(page: Page) -> Page:
    """Log in as a person does."""
    log_in(page)
    return page


def press(page: Page, name: str, note: str = "Done.") -> None:
    """Press a button, and read what the page says then."""
    page.get_by_role("button", name=name, exact=True).first.click()
    expect(page.get_by_role("status")).to_have_text(note)


def acts_of(rows: Rows, user_id: UUID) -> list[str]:
    noted = rows.ask("SELECT array_agg(act ORDER BY nr) AS acts FROM audit WHERE subject = %s", str(user_id))
    return noted.acts or []


@pytest.mark.slow
def test_every_act_on_a_user_as_a_person_does_it(
    desk: Page, rows: Rows, services: Services, settings: Settings, dead: list[Accepted]
) -> None:
    user_id = dead[0].user_id
    desk.get_by_role("link", name="Users").click()
    desk.get_by_label("Id of a user").fill("demo:alice")
    desk.get_by_role("button", name="Find").click()
    desk.wait_for_url(f"**/ops/users/{user_id}")
    expect(desk.get_by_text(CANARY)).to_have_count(0)
    press(desk, "Pause")
    press(desk, "Resume")
    press(desk, "Escalate to a human")
    expect(desk.get_by_text("escalated to a human")).to_be_visible()
    desk.get_by_label("Answer as a human").fill("Hello, this is Ada.")
    press(desk, "Send the answer", "Your answer is on its way.")
    press(desk, "Hand back to the bot")
    desk.get_by_role("button", name="Show texts").click()
    expect(desk.get_by_text("Hello, this is Ada.")).to_be_visible()
    expect(desk.get_by_text(CANARY).first).to_be_visible()
    shot(desk, "conversation-texts")
    desk.get_by_role("link", name="Hide them").click()
    expect(desk.get_by_text(CANARY)).to_have_count(0)
    press(desk, "Redrive dead messages")
    assert rows.count("dead") == 0
    press(desk, "End session")
    shot(desk, "conversation")
    assert acts_of(rows, user_id) == [
        *("user_paused", "user_resumed", "session_escalated", "user_answered", "session_handed_back", "texts_shown"),
        *("message_redriven", "message_redriven", "session_end_requested"),
    ]


@pytest.mark.slow
def test_a_user_is_forgotten_once_the_box_is_ticked(desk: Page, rows: Rows, dead: list[Accepted]) -> None:
    desk.goto(f"/ops/users/{dead[0].user_id}")
    desk.get_by_text("Forget this user").click()
    desk.get_by_label("Delete all of it").check()
    press(desk, "Forget", "The user is forgotten.")
    expect(desk.get_by_role("rowheader")).to_have_count(1)  # bob is there
    assert rows.count("dead") == 0
    desk.goto(f"/ops/users/{dead[0].user_id}")
    expect(desk.get_by_text("not found")).to_be_visible()


@pytest.mark.slow
def test_dead_messages_are_retried_and_dropped_one_by_one(desk: Page, rows: Rows, dead: list[Accepted]) -> None:
    desk.get_by_role("link", name="Dead messages").click()
    expect(desk.get_by_role("row")).to_have_count(3)
    shot(desk, "dead")
    press(desk, "Retry")
    press(desk, "Drop")
    expect(desk.get_by_text("No message is dead.")).to_be_visible()
    assert rows.states(dead[0].user_id) == ["received", "dead", "processed"]


@pytest.mark.slow
def test_replies_are_sent_again_settled_and_dropped(
    desk: Page, rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    user_id = accept("alice", "hello").user_id
    work_off(services, settings.model_copy(update={"handler": "onelane.handlers.echo:handle"}))
    [reply] = rows.replies(user_id)
    rows.fail_reply(reply.id)
    desk.goto("/ops/replies?state=failed")
    desk.get_by_role("link", name="1.1").click()
    press(desk, "Send again")
    for act, state in (("It was sent", "sent"), ("It failed", "failed")):
        rows.ask(
            "WITH gone AS (DELETE FROM outbox WHERE id = %s) UPDATE messages SET state = 'unknown', given_up_at = now()"
            " WHERE id = %s RETURNING id",
            reply.id,
            reply.id,
        )
        desk.goto(f"/ops/users/{user_id}")
        press(desk, act)
        assert rows.replies(user_id)[0].state == state
    press(desk, "Send again")
    press(desk, "Drop")
    assert rows.replies(user_id)[0].state == "dropped"
    assert acts_of(rows, user_id) == [
        *("reply_resent", "reply_settled", "reply_settled", "reply_resent", "reply_dropped"),
    ]


@pytest.mark.slow
def test_what_is_in_quarantine_is_read_again_and_dropped(desk: Page, services: Services) -> None:
    services.database.rows(
        "INSERT INTO quarantined_payloads (channel, reasons, content_type, query, headers, body, digest, expires_at)"
        " VALUES ('demo', %s, 'application/json', '', '{}', '[]', '1', now() + interval '1 day')",
        (f'["{HOSTILE[2]}"]',),
    )
    desk.get_by_role("link", name="Quarantine").first.click()
    press(desk, "Read again", "Read again: it is still not understood, and stays in quarantine.")
    press(desk, "Drop")
    expect(desk.get_by_text("Nothing is in quarantine.")).to_be_visible()


@pytest.mark.slow
def test_a_broken_channel_is_shown_and_let_send_again(desk: Page, services: Services) -> None:
    services.database.rows(
        "INSERT INTO channel_holds (channel, broken_at, word, code, probe_at)"
        " VALUES ('demo', now(), 'bad_token', '190', now() + interval '1 minute')"
    )
    desk.reload()
    expect(desk.get_by_role("alert")).to_contain_text("is broken since")
    desk.get_by_role("link", name="Broken channels").click()
    press(desk, "Let it send again")
    expect(desk.get_by_role("alert")).to_have_count(0)


@pytest.mark.slow
def test_the_last_hour_is_drawn_and_what_needs_somebody_is_counted(
    desk: Page,
    services: Services,
    settings: Settings,
    dead: list[Accepted],
    run_worker: RunWorker,
    accept: Accept,
    gate: Path,
) -> None:
    client = services.lanes.client
    minute = int(client.time()[0]) // 60
    total = 0
    client.delete(keys.MINUTES)
    for nr in range(60):
        numbers = {
            "onelane_accepted:message": total,
            "onelane_replies:delivered": int(total * 0.9),
            "onelane_end_to_end_seconds:0.05": total,
            "onelane_end_to_end_seconds:1": nr // 20,
        }
        client.lpush(keys.MINUTES, f"{minute - 60 + nr} {json.dumps(numbers)}")
        total += 120 + int(60 * math.sin(nr / 7)) + nr % 5
    client.hset(keys.NUMBERS, mapping={name: str(number) for name, number in (numbers | {"x": 1}).items()})
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle", "worker_slots": 7})):
        accept("carol", f"wait {gate}")
        desk.goto("/ops/overview")
        expect(desk.get_by_role("row", name="turns")).to_contain_text("1")
        drawn = desk.get_by_role("img", name="Messages a minute")
        expect(drawn).to_have_attribute("aria-label", re.compile(r"at most 18\d"))
        expect(desk.get_by_role("link", name="Dead messages").locator("xpath=../../dd")).to_have_text("2")
        slots = desk.get_by_role("cell", name="7", exact=True)  # the worker's own, not those that the web has set
        expect(slots).to_be_visible()  # by itself: the worker has been heard
        shot(desk, "overview")


@pytest.mark.slow
def test_the_doctor_is_asked_with_a_button(desk: Page) -> None:
    desk.get_by_role("link", name="Doctor").first.click()
    desk.get_by_role("button", name="Run the checks").click()
    expect(desk.get_by_role("rowheader", name="one session")).to_be_visible()


@pytest.mark.slow
def test_two_operators_at_once_each_see_what_the_other_has_done(
    desk: Page, chromium: Browser, address: str, rows: Rows, accept: Accept
) -> None:
    user_id = accept("alice").user_id
    session = rows.session_of(user_id)
    context = chromium.new_context(base_url=address, java_script_enabled=False)  # what it shows stays old
    other = context.new_page()
    log_in(other)
    for one in (desk, other):
        one.goto(f"/ops/users/{user_id}")
    press(desk, "Pause")
    press(other, "Pause", "Nothing was changed: the user was paused already.")
    press(other, "Resume")
    expect(desk.get_by_role("button", name="Pause", exact=True)).to_be_visible()  # by itself
    press(desk, "Escalate to a human")
    press(other, "Escalate to a human", "The session was escalated already: its time counts from now.")
    assert [one.id for one in rows.sessions(user_id)] == [session]
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts_stay_texts_on_every_page(
    desk: Page, rows: Rows, services: Services, accept: Accept, hostile: str
) -> None:
    user_id = accept(f"eve {hostile}", hostile).user_id
    session = rows.session_of(user_id)
    for statement in PLANTED:
        services.database.rows(statement, {"x": hostile, "user": user_id, "session": session})
    desk.goto(f"/ops/users/{user_id}?note={hostile}")
    assert is_clean(desk), desk.content()
    desk.get_by_role("button", name="Show texts").click()
    expect(desk.get_by_role("status")).to_contain_text("Texts are shown")
    assert is_clean(desk), desk.content()
    for name in PAGES:
        desk.goto(f"/ops/{name}?note=x&state={hostile}&window={hostile}&user={hostile}")
        assert is_clean(desk), desk.content()


@pytest.mark.slow
def test_without_javascript_everything_works_and_with_it_a_page_keeps_itself_current(
    desk: Page, chromium: Browser, address: str, accept: Accept, rows: Rows
) -> None:
    context = chromium.new_context(base_url=address, java_script_enabled=False, color_scheme="dark")
    plain = context.new_page()
    log_in(plain)
    desk.goto("/ops/overview")
    user_id = accept("alice").user_id
    expect(desk.get_by_text("1 message waits")).to_be_visible()  # by itself
    plain.goto(f"/ops/users/{user_id}")
    press(plain, "Pause")
    assert rows.user(user_id).paused_at is not None
    shot(plain, "dark")
    context.close()


@pytest.mark.slow
def test_no_page_keeps_anybody_from_using_it(
    page: Page, rows: Rows, services: Services, settings: Settings, dead: list[Accepted]
) -> None:
    services.database.rows(
        "INSERT INTO channel_holds (channel, broken_at, word, code, probe_at)"
        " VALUES ('demo', now(), 'bad_token', '190', now() + interval '1 minute')"
    )
    page.goto("/ops/overview")
    faults = serious_faults(page)
    log_in(page)
    lane, user = keys.queue_name(dead[0].user_id), f"users/{dead[0].user_id}"
    rq = ("queues", "workers", f"jobs/{lane}/failed/8/asc/1", f"job/{dead[0].message_id}")
    for path in (*PAGES, user, *(f"rq/0/view/{one}" for one in rq)):
        page.goto(f"/ops/{path}")
        faults += [f"{path}: {fault}" for fault in serious_faults(page)]
    page.goto(f"/ops/{user}")
    page.get_by_role("button", name="Show texts").click()
    expect(page.get_by_text(CANARY).first).to_be_visible()
    faults += serious_faults(page)
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_with_the_keyboard_alone_one_gets_to_the_content_and_every_control_has_a_name(
    desk: Page, accept: Accept, rows: Rows
) -> None:
    user_id = accept("alice").user_id
    rows.session_of(user_id)
    desk.goto(f"/ops/users/{user_id}")
    desk.keyboard.press("Tab")
    expect(desk.get_by_role("link", name="To the content")).to_be_focused()
    desk.keyboard.press("Enter")
    assert desk.evaluate("document.activeElement.id") == "main"
    unnamed = desk.eval_on_selector_all(
        "button, input:not([type=hidden]), textarea, a",
        "all => all.filter(one => !(one.textContent.trim() || (one.labels || []).length)).map(one => one.outerHTML)",
    )
    assert unnamed == []
