"""Offers messages as fast as they are accepted: a program that the interpreter of any checkout runs by its path.

It is one process with many clients, each of whom writes for users of its own, one message after the other, and again
what was not accepted. So much may wait for its turn; then the clients pause. It writes `ready` once all is prepared,
begins when there is a file `go`, writes `done`, and stays until it is ended, so that its CPU time can still be read.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg

PATHS = ("ready", "go", "done")
POLL_S = 0.02
WATCH_S = 0.05
TRIES_MAX = 100
PAUSE_S = 0.01
WAITING = "SELECT coalesce(sum(waiting), 0) FROM users"

Message = tuple[str, str, str]
"""Its external id, sender and text."""
Accept = Callable[[Message], object]
"""Accepts a message, or raises."""


def messages_of(user: int, how_many: int) -> list[Message]:
    """Return what a user writes, in the order in which it is sent."""
    return [(f"{user}-{number}", f"user {user}", f"message {number}") for number in range(1, how_many + 1)]


def onelane(channel: str, _messages: Sequence[Message]) -> Callable[[], Accept]:
    """Connect as a web process does, and accept through Intake."""
    delivery: Any = import_module("onelane.deliveries").Delivery
    intake = _intake("onelane")

    def accept(message: Message) -> None:
        external_id, sender, text = message
        intake.accept(channel, [delivery(senders=(sender,), external_id=external_id, text=text)])

    return lambda: accept


def worker(channel: str, _messages: Sequence[Message]) -> Callable[[], Accept]:
    """Do the same in a checkout from before the package had its name."""
    delivery: Any = import_module("worker.model").Delivery
    intake = _intake("worker")

    def accept(message: Message) -> None:
        external_id, sender, text = message
        intake.accept(channel, [delivery(sender=sender, external_id=external_id, text=text)])

    return lambda: accept


def rq(_channel: str, _messages: Sequence[Message]) -> Callable[[], Accept]:
    """Commit with our SQL, then put a job on RQ's queue that locks its user."""
    delivery: Any = import_module("onelane.deliveries").Delivery
    accepting, workers = import_module("bench.peers.accepting"), import_module("bench.peers.rq_workers")
    database = import_module("onelane.postgres.db").Database(os.environ["DATABASE_URL"])
    client = import_module("redis").Redis.from_url(os.environ["REDIS_URL"])

    def accept(message: Message) -> None:
        external_id, sender, text = message
        deliveries = [delivery(senders=(sender,), external_id=external_id, text=text)]
        workers.enqueue_locked(client, accepting.accept(database, deliveries), deliveries)

    return lambda: accept


def http(_channel: str, messages: Sequence[Message]) -> Callable[[], Accept]:
    """Post signed webhooks, each client over a connection that stays open. All are signed beforehand."""
    posting, port = import_module("bench.posting"), int(os.environ["BENCH_PORT"])
    requests = posting.raw_requests(messages)

    def connect() -> Accept:
        client = posting.Client(port)
        return lambda message: client.post(requests[message[0]])

    return connect


KINDS: dict[str, Callable[[str, Sequence[Message]], Callable[[], Accept]]] = {
    kind.__name__: kind for kind in (onelane, worker, rq, http)
}


def _intake(package: str) -> Any:
    settings = import_module(f"{package}.config").Settings.from_environment()
    return import_module(f"{package}.bootstrap").open_services(settings).intake


class Room:
    """Whether more may be offered: looks again and again how many messages wait for their turn."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._free = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self) -> None:
        """Wait until there is room."""
        self._free.wait()

    def _watch(self) -> None:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0) as connection:
            while True:
                [(waiting,)] = connection.execute(WAITING).fetchall()
                (self._free.set if waiting < self._waiting_max else self._free.clear)()
                time.sleep(WATCH_S)


def offer(accept: Accept, messages: Sequence[Message], room: Room) -> None:
    """Offer one client's messages in their order."""
    for message in messages:
        room.wait()
        for tries in range(1, TRIES_MAX + 1):
            try:
                accept(message)
                break
            except Exception:  # a provider delivers again whatever the reason was
                if tries == TRIES_MAX:
                    raise
                time.sleep(PAUSE_S)


def run(kind: str, channel: str, users: int, each: int, clients: int, waiting_max: int, folder: Path) -> None:
    """Offer everything, once there is the file `go`."""
    ready, go, done = (folder / name for name in PATHS)
    written = [messages_of(user, each) for user in range(users)]
    connect = KINDS[kind](channel, [message for user in written for message in user])
    room, began, threads = Room(waiting_max), threading.Event(), []

    def work(accept: Accept, mine: Sequence[Sequence[Message]]) -> None:
        began.wait()
        offer(accept, [message for turn in zip(*mine, strict=True) for message in turn], room)

    for client in range(min(clients, users)):
        threads.append(threading.Thread(target=work, args=(connect(), written[client::clients])))
        threads[-1].start()
    ready.touch()
    while not go.exists():
        time.sleep(POLL_S)
    began.set()
    for thread in threads:
        thread.join()
    done.touch()
    threading.Event().wait()


if __name__ == "__main__":
    arguments = json.loads(os.environ["BENCH_OFFER"])
    run(**{**arguments, "folder": Path(arguments["folder"])})
