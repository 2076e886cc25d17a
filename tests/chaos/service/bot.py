"""The handler of a run: HANDLER=tests.chaos.service.bot:handle. It does what a message asks (see `traffic/speech.py`).

Environment: CHAOS_HISTORY, CHAOS_API (the provider's API, as http://host:port), TURN_TIMEOUT_S as the worker has it.
Imported in a worker it also installs the recording; in an isolated child, which has no ledger, it does not.

What it did it notes; what it must remember beyond its process's death (which messages have crashed or hung, which were
redriven) are files in the history. Its reply goes to the provider's API first, so a run that fails there fails.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from onelane.bot import Turn
from tests.chaos.history import HISTORY, Recorder
from tests.chaos.traffic.speech import REDRIVEN, TOOL, Ask, answers_to, ask_of

API_TIMEOUT_S = 0.5
ALIVE_S = 0.05
DOZE_TICK_S = 0.02
HANGS_BEYOND_S = 2.0
EXIT_CRASHED = 70


class Cancelled(Exception):  # noqa: N818 - it names a state
    """The turn was asked to stop, and does."""


class Runs:
    """The runs of this process that have not ended; those that take long give signs of life."""

    def __init__(self) -> None:
        self.recorder = Recorder("bot")
        self._since: dict[str, float] = {}
        self._has_some = threading.Event()
        threading.Thread(target=self._live, name="signs-of-life", daemon=True).start()

    @contextmanager
    def noted(self, turn: Turn) -> Iterator[str]:
        """Note the begin and the end of a run, however it ends."""
        run, result = uuid4().hex, "raised"
        self.recorder.note(
            "start",
            run=run,
            user_id=turn.user.id,
            sender=turn.user.sender,
            message_id=turn.message.id,
            seq=turn.message.seq,
            session_id=turn.session.id,
            text=turn.message.text,
        )
        self._since[run] = time.monotonic()
        self._has_some.set()
        try:
            yield run
            result = "ok"
        except Cancelled:
            result = "cancelled"
            raise
        finally:
            del self._since[run]
            self.recorder.note("end", run=run, result=result)

    def _live(self) -> None:
        while True:
            self._has_some.wait()
            self._has_some.clear()
            while self._since:
                time.sleep(ALIVE_S)
                for run, since in list(self._since.items()):
                    if time.monotonic() - since > ALIVE_S:
                        self.recorder.note("alive", run=run)


@cache
def _runs() -> Runs:
    return Runs()


def handle(turn: Turn) -> list[str]:
    """Do what the message asks, call the provider's API, and answer."""
    ask = ask_of(turn.message.text)
    with _runs().noted(turn) as run:
        if act := ACTS.get(ask.word):
            act(turn, ask, run)
        for state in (turn.session.state, turn.user.state):
            state["n"] = state.get("n", 0) + 1
        answers = answers_to(turn.message.text, turn.session.state["n"])
        _tell_provider(turn, answers)
        if ask.word == "raise-until" and turn.message.attempts < int(ask.argument):
            raise ValueError("too early")
    return answers


def _use_tool(turn: Turn, _ask: Ask, _run: str) -> None:
    """Read like a bot that reads, and save something."""
    turn.history(limit=5)
    turn.tool_output(TOOL)
    turn.save_tool_output(TOOL, {"key": turn.idempotency_key, "seq": turn.message.seq})


def _sleep(_turn: Turn, ask: Ask, _run: str) -> None:
    time.sleep(float(ask.argument))


def _doze(turn: Turn, ask: Ask, _run: str) -> None:
    ends = time.monotonic() + float(ask.argument)
    while time.monotonic() < ends:
        if turn.cancelled:
            raise Cancelled
        time.sleep(DOZE_TICK_S)


def _raise(turn: Turn, _ask: Ask, _run: str) -> None:
    if not (_history() / REDRIVEN / str(turn.message.id)).exists():
        raise ValueError("not before it is redriven")


def _hang(turn: Turn, _ask: Ask, _run: str) -> None:
    if _times(turn) == 1:
        time.sleep(float(os.environ["TURN_TIMEOUT_S"]) + HANGS_BEYOND_S)


def _crash(turn: Turn, ask: Ask, run: str) -> None:
    if _times(turn) <= int(ask.argument):
        _runs().recorder.note("end", run=run, result="crashed")
        os._exit(EXIT_CRASHED)


ACTS: dict[str, Callable[[Turn, Ask, str], None]] = {
    "tool": _use_tool,
    "sleep": _sleep,
    "doze": _doze,
    "raise": _raise,
    "hang": _hang,
    "crash": _crash,
    "bye": lambda turn, _ask, _run: turn.end_session(),
    "escalate": lambda turn, _ask, _run: turn.escalate(),
}
"""What each request does beyond the answer."""


def _times(turn: Turn) -> int:
    """Count this run of the message among all, also those whose process died of it."""
    (_history() / "runs").mkdir(exist_ok=True)
    with (_history() / "runs" / str(turn.message.id)).open("ab", buffering=0) as file:
        file.write(b".")
        return file.tell()


def _history() -> Path:
    return Path(os.environ[HISTORY])


def _tell_provider(turn: Turn, answers: list[str]) -> None:
    """Deliver the answers; raise when the provider's API does not take them."""
    body = json.dumps({"user_id": str(turn.user.id), "seq": turn.message.seq, "texts": answers}).encode()
    status = _post(body, {"Idempotency-Key": turn.idempotency_key, "Content-Type": "application/json"})
    if status != HTTPStatus.OK:
        raise ConnectionError(f"the provider's API answered {status}")


_own = threading.local()


def _post(body: bytes, headers: dict[str, str]) -> int:
    """Post over this thread's connection; over a new one if that had been closed since it was used last."""
    connection, was_used = getattr(_own, "connection", None), True
    if connection is None or connection.sock is None:
        where = urlsplit(os.environ["CHAOS_API"])
        connection, was_used = HTTPConnection(where.hostname or "", where.port, timeout=API_TIMEOUT_S), False
        _own.connection = connection
    try:
        connection.request("POST", "/messages", body, headers)
        response = connection.getresponse()
        response.read()
    except (OSError, HTTPException) as error:
        connection.close()
        if was_used and isinstance(error, ConnectionError):
            return _post(body, headers)
        raise
    return response.status


if HISTORY in os.environ and "onelane.turns.records" in sys.modules:
    from tests.chaos.service import recording

    recording.install("worker")
    _runs()
