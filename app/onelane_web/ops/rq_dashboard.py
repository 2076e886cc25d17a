"""The pages of rq-dashboard, under /ops/rq, with data and actions of our own.

The templates, styles and scripts are rq-dashboard's, at the addresses that its scripts use. None of its Python is
loaded: it unpickles jobs, opens a connection for each request, requeues on GET, answers 500 for a job that is gone, and
passes text from Redis on as HTML. Its scripts insert what they receive as HTML; so every string is escaped here, except
the two that they escape themselves.
"""

import re
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Final

import redis
from flask import Blueprint, abort, g, jsonify, render_template, url_for
from flask.typing import ResponseReturnValue
from markupsafe import escape

from onelane.errors import NotRequeued
from onelane.lanes.refusals import UNREADABLE
from onelane.model import uuid_or_none
from onelane.operations.audit import record
from onelane.postgres.db import Database
from onelane.telemetry.log import event
from onelane_web.failure import report
from onelane_web.ops.rq_links import jobs_url, pagination
from onelane_web.ops.rq_state import JOB_ID, QUEUED, REGISTRIES, Row, RqState, showable

NAME: Final = "rq_dashboard"
"""The name of the blueprint in its templates; also the package."""
POLL_MS: Final = 5_000
PER_PAGE_MAX: Final = 200
PAGE_MAX: Final = 1_000_000
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9_.:@+-]{1,200}")
"""Names of queues that have a page. Its script does not quote others safely; ours are `user:` or `reply:`, a UUID."""
ESCAPED_BY_ITS_SCRIPT: Final = frozenset({"description", "exc_info"})
"""In the list of jobs, and only there."""
WHOSE: Final = "SELECT user_id FROM messages WHERE id = %s"


def is_installed() -> bool:
    """Return whether the extra `dashboard` is installed."""
    return find_spec(NAME) is not None


def blueprint(client: redis.Redis, database: Database) -> Blueprint:
    """Serve rq-dashboard's pages over `client`; what operators do goes into the audit. The caller must protect them."""
    state = RqState(client)
    pages = Blueprint(NAME, NAME, template_folder="templates", static_folder="static")
    pages.context_processor(_context)
    _add_views(pages, state)
    _add_data(pages, state)
    _add_actions(pages, state, database)
    pages.register_error_handler(redis.exceptions.RedisError, _redis_unavailable)
    for kind in UNREADABLE:
        pages.register_error_handler(kind, _redis_unreadable)
    pages.register_error_handler(NotRequeued, _not_requeued)
    return pages


def _context() -> Row:
    """Return the variables of its templates. It can show several Redis servers; we have one."""
    return {
        "rq_url_prefix": url_for(".queues_overview"),
        "rq_dashboard_version": version("rq-dashboard"),
        "rq_version": version("rq"),
        "current_instance": 0,
        "instance_list": ["Redis"],
        "poll_interval": POLL_MS,
        "enable_delete": False,
    }


def _add_views(pages: Blueprint, state: RqState) -> None:
    """Serve the pages. They hold no data: their scripts fetch it."""

    @pages.get("/0/view", endpoint="view")
    @pages.get("/0/view/queues", endpoint="queues_view")
    @pages.get("/")
    def queues_overview() -> str:
        return render_template("rq_dashboard/queues.html", active_tab="queues")

    @pages.get("/0/view/workers")
    def workers_overview() -> str:
        return render_template("rq_dashboard/workers.html", active_tab="workers")

    @pages.get("/0/view/jobs", defaults={"queue": None, "registry": QUEUED, "per_page": 8, "order": "asc", "page": 1})
    @pages.get("/0/view/jobs/<queue>/<registry>/<int:per_page>/<order>/<int:page>")
    def jobs_overview(queue: str | None, registry: str, per_page: int, order: str, page: int) -> str:
        names = [name for name in state.queue_names() if QUEUE_NAME.fullmatch(name)]
        queue = queue or next(iter(names), "default")
        _check(queue, registry, per_page, order, page)
        return render_template(
            "rq_dashboard/jobs.html",
            active_tab="jobs",
            queues=[{"name": name} for name in names],
            queue={"name": queue},
            registry_name=registry,
            per_page=per_page,
            order=order,
            page=page,
        )

    @pages.get("/0/view/job/<job_id>")
    def job_view(job_id: str) -> ResponseReturnValue:
        if _existing(state, job_id) is None:
            return render_template("ops/gone.html"), 404
        return render_template("rq_dashboard/job.html", id=job_id)


def _add_data(pages: Blueprint, state: RqState) -> None:
    """Serve the data that the scripts fetch."""

    @pages.get("/0/data/queues.json")
    def list_queues() -> ResponseReturnValue:
        rows, unlisted = state.queues()
        listed = [_queue(**row) for row in rows]
        if unlisted:
            rest = dict.fromkeys((QUEUED, *REGISTRIES), 0)
            listed.append(_queue(name=f"… and {unlisted} more", **rest))
        return jsonify(_escaped({"queues": listed}))

    @pages.get("/0/data/jobs/<queue>/<registry>/<int:per_page>/<order>/<int:page>.json")
    def list_jobs(queue: str, registry: str, per_page: int, order: str, page: int) -> ResponseReturnValue:
        _check(queue, registry, per_page, order, page)
        first = (page - 1) * per_page
        ids, total = state.job_ids(queue, registry, first, per_page, descending=order == "dsc")
        jobs = [_listed(job, registry) for job in state.jobs(ids) if job]
        link = partial(jobs_url, queue, registry, per_page, order)
        answer = {"jobs": jobs, "pagination": pagination(link, total, per_page, page)}
        return jsonify(_escaped(answer, ESCAPED_BY_ITS_SCRIPT))

    @pages.get("/0/data/job/<job_id>.json")
    def job_info(job_id: str) -> ResponseReturnValue:
        job = _existing(state, job_id)
        if job is None:
            return jsonify(error="This job is gone: its message has been answered."), 404
        there = state.existing(job["depends_on"])
        job["depends_on_status"] = ["active" if is_there else "expired" for is_there in there]
        return jsonify(_escaped({**job, "result": None, "metadata": "{}"}))

    @pages.get("/0/data/workers.json")
    def list_workers() -> ResponseReturnValue:
        return jsonify(_escaped({"workers": [_worker(row) for row in state.workers()]}))


def _add_actions(pages: Blueprint, state: RqState, database: Database) -> None:
    """Requeue dead messages; refuse all other actions."""

    @pages.post("/job/<job_id>/requeue")
    def requeue_job_view(job_id: str) -> ResponseReturnValue:
        if not JOB_ID.fullmatch(job_id):
            abort(404)
        state.requeue(job_id)
        found = database.row(WHOSE, (uuid_or_none(job_id),))
        record(database, g.operator.name, "job_requeued", found and found.user_id, {"message_id": job_id})
        event("operator_requeued", message_id=job_id)
        return jsonify(status="OK")

    @pages.post("/requeue/<queue_name>")
    def requeue_all(queue_name: str) -> ResponseReturnValue:
        if not QUEUE_NAME.fullmatch(queue_name):
            abort(404)
        count = state.requeue_all(queue_name)
        user_id = uuid_or_none(queue_name.partition(":")[2])
        record(database, g.operator.name, "jobs_requeued", user_id, {"queue": queue_name, "count": count})
        event("operator_requeued_all", queue=queue_name, count=count)
        return jsonify(status="OK", count=count)

    @pages.post("/queue/<queue_name>/compact", endpoint="compact_queue")
    @pages.post("/queue/<queue_name>/<registry_name>/empty", endpoint="empty_queue")
    @pages.post("/job/<job_id>/delete", endpoint="delete_job_view")
    def closed(**_: str) -> ResponseReturnValue:
        return jsonify(error="Messages cannot be deleted here: Postgres would bring them back."), 403


def _check(queue: str, registry: str, per_page: int, order: str, page: int) -> None:
    is_right = (
        QUEUE_NAME.fullmatch(queue)
        and registry in {QUEUED, *REGISTRIES}
        and 1 <= per_page <= PER_PAGE_MAX
        and order in {"asc", "dsc"}
        and 1 <= page <= PAGE_MAX
    )
    if not is_right:
        abort(404)


def _existing(state: RqState, job_id: str) -> Row | None:
    return state.jobs([job_id])[0] if JOB_ID.fullmatch(job_id) else None


def _queue(*, name: str, **counts: int) -> Row:
    """Return a queue as its script reads it: a count and an address for each registry."""
    row: Row = {"name": showable(name), "count": counts.pop(QUEUED), "queued_url": jobs_url(name, QUEUED)}
    for registry, count in counts.items():
        row[f"{registry}_job_registry_count"] = count
        row[f"{registry}_url"] = jobs_url(name, registry)
    return row


def _listed(job: Row, registry: str) -> Row:
    """Return a job of a list as its script reads it. The script shows Requeue beside a traceback only."""
    lost = "(its traceback is lost)" if registry == "failed" else None
    return {**job, "description": job["description"] or job["id"], "exc_info": job["exc_info"] or lost}


def _worker(row: Row) -> Row:
    lanes = [{"name": name, "url": jobs_url(name, QUEUED)} for name in row["queues"]]
    # `status`, because its script overwrites `state`.
    return {**row, "status": row["state"] or "unknown", "lanes": lanes, "current_job": "idle"}


def _escaped(value: Any, but: Iterable[str] = ()) -> Any:
    """Escape every string for HTML, in text and in quoted attributes, except under the names `but`."""
    if isinstance(value, str):
        return str(escape(value))
    if isinstance(value, list):
        return [_escaped(entry, but) for entry in value]
    if isinstance(value, dict):
        return {name: entry if name in but else _escaped(entry, but) for name, entry in value.items()}
    return value


def _redis_unavailable(_error: redis.exceptions.RedisError) -> ResponseReturnValue:
    return jsonify(error="Redis does not answer. Accepted messages wait in Postgres."), 503


def _redis_unreadable(error: Exception) -> ResponseReturnValue:
    report(error)
    return jsonify(error="What Redis answered cannot be read. Accepted messages wait in Postgres."), 503


def _not_requeued(error: NotRequeued) -> ResponseReturnValue:
    return jsonify(error=f"Not requeued: {error}."), 409
