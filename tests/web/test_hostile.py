"""Names, texts and planted strings that want to run in the operator's browser: on every page they are text."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from redis import Redis

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import Accept, RunWorker, eventually, slow_after
from tests.door import REGISTRIES
from tests.rows import Rows

MARK = "pwned"
"""What a hostile string would bring into the page if it were taken for markup."""
HOSTILE = [
    f"<script>window.{MARK}=1;alert(1)</script>",
    f'"><img src=x class={MARK} onerror=alert(1)>',
    f"' class='{MARK}' onmouseover='alert(1)' autofocus onfocus='alert(1)",
    f"</script><script>window.{MARK}=1;alert(1)</script>",
    f"</textarea></pre></template><svg class={MARK} onload=alert(1)>",
    f"<a class={MARK} href='javascript:alert(1)'>javascript:alert(1)</a>",
    f"<%= window.{MARK}=1 %>{{{{ 7*7 }}}}${{alert(1)}}",
    "\u202e\u2066<b class=pwned>gnp.exe\u2069",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 <iframe class=pwned srcdoc='<script>parent.alert(1)</script>'>",
    f"\\';window.{MARK}=1;alert(1)//",
]


EACH = slow_after(1, HOSTILE)


def is_clean(page: Page) -> bool:
    """Nothing hostile became an element, an attribute or a variable. Dialogs and broken scripts fail the tab itself."""
    elements = page.locator(f".{MARK}, img[src=x], [onerror], [onload], [onfocus], [onmouseover], iframe").count()
    links = page.eval_on_selector_all("a[href]", "links => links.filter(a => a.protocol === 'javascript:').length")
    return elements == 0 and links == 0 and page.evaluate(f"window.{MARK}") is None


def visit(page: Page, path: str, waits_for: str) -> None:
    """Open a page, let its script draw the data, and touch everything once."""
    page.goto(f"/ops/rq/{path}")
    expect(page.locator(waits_for).first).to_be_visible()
    page.eval_on_selector_all(
        "td, pre, h2, strong, [title]",
        "all => all.forEach(one => one.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})))",
    )
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"hostile-{path.partition('view/')[2].replace('/', '-')[:40]}.png")
    assert is_clean(page), page.content()


@pytest.mark.slow
def test_hostile_users_and_what_they_write_are_never_seen(
    rows: Rows, inside: Page, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 1})):
        messages = [accept(f"{text}{nr}", f"raise {text}") for nr, text in enumerate(HOSTILE)]
        eventually(lambda: rows.count("dead") == len(HOSTILE))
    lane, job = keys.queue_name(messages[0].user_id), messages[0].message_id
    visit(inside, "0/view/queues", "tr[data-role=queue]")
    expect(inside.locator("tr[data-role=queue]")).to_have_count(len(HOSTILE))
    visit(inside, f"0/view/jobs/{lane}/failed/8/asc/1", "tr[data-role=job]")
    expect(inside.locator("pre.exc_info")).to_contain_text("ValueError")
    visit(inside, f"0/view/job/{job}", "pre.exc_info")


@pytest.mark.parametrize("text", EACH)
def test_what_somebody_plants_in_redis_is_text_on_every_page(inside: Page, redis: Redis, text: str) -> None:
    name = text.replace("/", "")
    redis.sadd("rq:queues", f"rq:queue:{name}", "rq:queue:q")
    redis.rpush(f"rq:queue:{name}", "job")
    redis.sadd("rq:workers", f"rq:worker:{name}")
    redis.hset(
        f"rq:worker:{name}", mapping=dict.fromkeys(("state", "queues", "birth", "version", "last_heartbeat"), text)
    )
    job: dict[Any, Any] = dict.fromkeys(
        ("description", "origin", "created_at", "ended_at", "data", "meta", "result", "worker_name"), text
    )
    for job_id in ("job", name):
        redis.hset(f"rq:job:{job_id}", mapping={**job, "status": "failed", "dependency_ids": json.dumps([text, "job"])})
        redis.rpush("rq:queue:q", job_id)
        for registry in REGISTRIES[1:]:
            redis.zadd(f"rq:{'wip' if registry == 'started' else registry}:q", {job_id: 2e9})
    visit(inside, "0/view/queues", "tr[data-role=queue]")
    expect(inside.locator("tr[data-role=queue]")).to_have_count(2)
    visit(inside, "0/view/workers", "tr[data-role=worker]")
    for registry in ("queued", "failed"):
        visit(inside, f"0/view/jobs/q/{registry}/8/asc/1", "tr[data-role=job]")
    visit(inside, "0/view/job/job", "#job-data p")
    inside.goto("/ops/rq/0/view/queues")
    foreign = inside.locator("tr[data-role=queue]").filter(has_not=inside.get_by_text("q", exact=True))
    foreign.locator("a").first.click()  # a queue with such a name has no page
    expect(inside.get_by_text('"error":')).to_be_visible()
    assert is_clean(inside)


@pytest.mark.parametrize("text", EACH)
def test_an_address_cannot_bring_it_in_either(inside: Page, text: str) -> None:
    for path in (
        "0/view/jobs/{}/queued/8/asc/1",
        "0/view/jobs/q/{}/8/asc/1",
        "0/view/jobs/q/queued/8/{}/1",
        "0/view/job/{}",
    ):
        with inside.expect_navigation():
            inside.evaluate("path => { location.href = path }", "/ops/rq/" + path.format(quote(text, safe="")))
        assert is_clean(inside)
    inside.goto(f"/ops/login?next={quote(text, safe='')}")
    assert is_clean(inside)
