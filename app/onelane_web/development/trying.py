"""The page on which a bot is tried: `/try`, under `onelane run` alone. It plays users, and shows what became of it.

What is played goes through the channel's adapter, signed, as the provider's own would. The page has no login: it
answers this machine's own browser, and no other site can make that browser act.
"""

import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from typing import Annotated, Final
from uuid import UUID, uuid4

from flask import Blueprint, Response, abort, json, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onelane.bootstrap import Services
from onelane.channels import Inbound
from onelane.deliveries import Delivery
from onelane.errors import OnelaneError, StoreUnavailable
from onelane.model import Attachment, AttachmentKind, JsonObject
from onelane.operations.snapshot import Survey
from onelane.operations.timeline import timeline_of
from onelane.users import user_of

HEADER: Final = "X-Onelane-Try"
"""Our own script sends it; another site's may not, without asking first."""
HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
PLAYED_S: Final = 10.0
PROBLEM_MAX: Final = 2_000
USERS_MAX: Final = 8
LINES_MAX: Final = 200
ROWS_MAX: Final = 200
HERE: Final = "http://127.0.0.1"
PICTURE: Final = "https://files.example/roof.jpg"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Played(BaseModel):
    """What the page asks to be played: a text, a button or a picture of somebody, once or several times at once."""

    model_config = ConfigDict(extra="forbid")

    channel: str
    user: Annotated[str, Field(min_length=1, max_length=64)]
    text: Annotated[str, Field(max_length=4_000)] = ""
    button: Annotated[str, Field(max_length=256)] | None = None
    picture: bool = False
    count: Annotated[int, Field(ge=1, le=20)] = 1


def blueprint(services: Services) -> Blueprint:
    """Serve /try and what its script asks for."""
    pages = Blueprint("try", __name__, url_prefix="/try", static_folder="static", static_url_path="/static")
    pages.before_request(_refuse_strangers)
    pages.after_request(_harden)
    playing = ThreadPoolExecutor(20, thread_name_prefix="played")

    @pages.get("")
    def page() -> ResponseReturnValue:
        return render_template(
            "try/page.html", channels=sorted(services.settings.channels), acts=services.settings.try_acts
        )

    @pages.get("/state")
    def state() -> ResponseReturnValue:
        """Answer what the conversations of the named users are now; 304 while nothing has changed."""
        channel = _channel(services, request.args.get("channel", ""))
        return _if_changed(json.dumps(_state(services, channel, request.args.getlist("user")[:USERS_MAX])))

    @pages.post("/messages")
    def messages() -> ResponseReturnValue:
        """Deliver messages, all of them at once, as the provider would."""
        played = Played.model_validate(request.get_json())
        channel = _channel(services, played.channel)
        deliver = partial(_deliver, services, channel)
        accepted = list(playing.map(deliver, _deliveries(services, channel, played), timeout=PLAYED_S))
        return jsonify(accepted=len(accepted)), 202

    @pages.post("/acts/<act>")
    def acts(act: str) -> ResponseReturnValue:
        """Do to the service what must not hurt anybody."""
        if act not in services.settings.try_acts:
            abort(404)
        return jsonify(done=ACTS[act](services))

    pages.register_error_handler(ValidationError, _invalid)
    pages.register_error_handler(StoreUnavailable, _away)
    pages.register_error_handler(OnelaneError, _refused)
    return pages


def _refuse_strangers() -> None:
    """Answer this machine's browser alone, and only our own script where something changes."""
    host = request.host.rpartition(":")[0] if ":" in request.host.rpartition("]")[2] else request.host
    if host not in HOSTS or (request.method != "GET" and request.headers.get(HEADER) is None):
        abort(403)


def _harden(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    return response


def _if_changed(body: str) -> ResponseReturnValue:
    response = Response(body, content_type="application/json")
    response.set_etag(sha256(body.encode()).hexdigest()[:32])
    return response.make_conditional(request)


def _channel(services: Services, name: str) -> str:
    if name not in services.settings.channels:
        abort(404)
    return name


def _deliveries(services: Services, channel: str, played: Played) -> list[Delivery]:
    persona = services.providers[channel].persona(played.user)
    picture = Attachment(url=PICTURE, id="900000000000001", kind=AttachmentKind.IMAGE, content_type="image/jpeg")
    return [
        Delivery(
            senders=persona.senders,
            conversation=persona.conversation,
            external_id=f"try_{uuid4().hex}",
            text=played.text if played.count == 1 else f"{played.text} {number}",
            button=played.button,
            attachments=(picture,) if played.picture else (),
            route=persona.route,
        )
        for number in range(1, played.count + 1)
    ]


def _deliver(services: Services, channel: str, delivery: Delivery) -> None:
    provider = services.providers[channel]
    url = f"{HERE}/webhooks/{channel}"
    signed = provider.sign(url, delivery)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    inbound = Inbound(url + signed.query, headers, content_type, signed.body)
    services.receiving.receive(channel, inbound, lambda _: None)


def _state(services: Services, channel: str, names: list[str]) -> JsonObject:
    snapshot = Survey(services.lanes).snapshot(ROWS_MAX)
    leased = {lane.user_id for lane in snapshot.lanes if lane.worker}
    return {
        "problem": _problem(services),
        "workers": sum(worker.is_alive for worker in snapshot.workers),
        "users": {name: _conversation(services, channel, name, leased) for name in names},
    }


def _problem(services: Services) -> str:
    """Return why the newest code of the bot does not run, if it does not."""
    file = services.settings.try_problem_file
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")[-PROBLEM_MAX:] if file else ""
    except OSError:
        return ""


def _conversation(services: Services, channel: str, name: str, leased: set[str]) -> JsonObject | None:
    senders = services.providers[channel].persona(name)
    user_id: UUID | None = user_of(services.database, channel, senders.conversation or senders.senders[0])
    if user_id is None:
        return None
    told = timeline_of(services.database, user_id, LINES_MAX)
    return {**told.model_dump(mode="json"), "is_working": str(user_id) in leased}


def _kill_worker(services: Services) -> str:
    """Kill every worker process of this machine, as a crash would: `onelane run` starts another."""
    here = f"onelane.{gethostname()}."
    killed = 0
    for worker in Survey(services.lanes).snapshot(0).workers:
        if worker.is_alive and worker.name.startswith(here):
            with suppress(OSError, ValueError):
                os.kill(int(worker.name.removeprefix(here).partition(".")[0]), signal.SIGKILL)
                killed += 1
    return f"killed {killed}"


def _forget_redis(services: Services) -> str:
    """Empty Redis, as a crash without a disk would."""
    services.lanes.client.flushall()
    return "forgotten"


ACTS: Final[Mapping[str, Callable[[Services], str]]] = {"kill-worker": _kill_worker, "forget-redis": _forget_redis}


def _invalid(error: ValidationError) -> ResponseReturnValue:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return jsonify(error=f"{'.'.join(map(str, first['loc']))}: {first['msg']}"), 400


def _refused(error: OnelaneError) -> ResponseReturnValue:
    return jsonify(error=str(error)), 409


def _away(_error: StoreUnavailable) -> ResponseReturnValue:
    return jsonify(error="Postgres is away: try again"), 503
