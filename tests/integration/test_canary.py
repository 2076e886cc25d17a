"""Marked words go in everywhere, in a whole run of real processes, and come out nowhere that somebody else can look."""

import base64
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Self
from uuid import uuid4

import pytest
import redis

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.channels import provider_of
from onelane.channels.provider import Persona
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.model import Attachment
from onelane.turns.handling import SUSPECT_AFTER_DEATHS
from onelane.users import user_of
from tests.conftest import DEADLINE_S, eventually
from tests.dumps import everything_in
from tests.processes import environment, web_process, worker_process
from tests.rows import Rows

REFUSE_A_TEXT = "ALTER TABLE {} ADD CONSTRAINT canary CHECK (text NOT LIKE '%refused%') NOT VALID"
REFUSE_NONE = "ALTER TABLE {} DROP CONSTRAINT IF EXISTS canary"
WITH_TEXT = ("inbox", "messages")


def _new(kind: str) -> str:
    return f"canary{kind}{uuid4().hex}"


@dataclass
class Canaries:
    """Words that exist nowhere else, and the finding of them."""

    text: str = field(default_factory=lambda: _new("text"))
    sender: str = field(default_factory=lambda: f"+33{uuid4().int % 10**14:014}")
    attachment: str = field(default_factory=lambda: _new("attachment"))
    button: str = field(default_factory=lambda: _new("button"))
    query: str = field(default_factory=lambda: _new("query"))
    standard_secret: str = field(default_factory=lambda: base64.b64encode(_new("secret").encode()).decode())
    twilio_secret: str = field(default_factory=lambda: _new("twilio"))
    telegram_secret: str = field(default_factory=lambda: _new("telegram"))
    bot_token: str = field(default_factory=lambda: f"990001:{_new('bot')}")
    say_secret: str = field(default_factory=lambda: base64.b64encode(_new("say").encode()).decode())
    metrics_token: str = field(default_factory=lambda: _new("token"))
    ops_password: str = field(default_factory=lambda: _new("ops"))
    secret_key: str = field(default_factory=lambda: _new("key"))
    database_password: str = field(default_factory=lambda: _new("database"))

    def found_in(self, looked_at: bytes) -> set[str]:
        """Name those that are in there, as they are or in the plain disguises of a log."""
        return {name for name, word in vars(self).items() if any(form in looked_at for form in _forms(word))}


def _forms(word: str) -> Iterable[bytes]:
    plain = word.encode()
    return plain, base64.b64encode(plain).rstrip(b"=")[:-1], plain.hex().encode(), word.replace("+", "%2B").encode()


class ProcessList:
    """Looks at the command lines of all processes, again and again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue


class Web:
    """The web as gunicorn serves it."""

    def __init__(self, port: int, channels: dict[str, Channel]) -> None:
        self._port = port
        self._channels = channels

    def deliver(self, channel: str, delivery: Delivery, query: str = "", **headers: str) -> int:
        """Sign and post, as the provider would."""
        path = f"/webhooks/{channel}{query}"
        url = f"http://127.0.0.1:{self._port}{path}"
        signed = provider_of(self._channels[channel]).sign(url, delivery)
        return self.ask("POST", path, signed.body, {**signed.headers, **headers})[0]

    def say(self, said: bytes) -> None:
        """Say what is no request: the rest of a body whose length was told too short."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=20) as wire:
            wire.sendall(said)
            wire.recv(1_000)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@dataclass
class Run:
    """One whole run, and where its traces are."""

    canaries: Canaries
    services: Services
    settings: Settings
    folder: Path
    also: tuple[str, ...] = ()
    """Further things for the handler to do."""
    redis: list[bytes] = field(default_factory=list)
    pages: list[bytes] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)
    processes: set[bytes] = field(default_factory=set)

    def play(self, handler: str = "tests.integration.test_canary:handle") -> None:
        extra = {
            "metrics_token": self.canaries.metrics_token,
            "ops_password": self.canaries.ops_password,
            "secret_key": self.canaries.secret_key,
            "say_secret": f"whsec_{self.canaries.say_secret}",
            "log_format": "json",
            "log_level": "INFO",
        }
        with (
            ProcessList() as processes,
            web_process(self.settings, self.folder, **extra) as port,
            worker_process(
                self.settings, handler=handler, log=self.folder / "worker.log", is_supervised=True, **extra
            ) as worker,
        ):
            web = Web(port, self.settings.channels)
            self._converse(web)
            self._be_hostile(web)
            self._offend_postgres(web)
            self._wait_until_settled()
            self._look_around(web, extra)
            worker.ask_to_stop()
            worker.wait(DEADLINE_S)
        self.processes = processes.seen

    @property
    def found(self) -> dict[str, set[str]]:
        """Name, for each place, the canaries that got there."""
        places = {
            "output of the web": [(self.folder / "web.log").read_bytes()],
            "output of the worker": [(self.folder / "worker.log").read_bytes()],
            "Redis": self.redis,
            "pages": self.pages,
            "output of commands": self.commands,
            "process list": self.processes,
        }
        found = {place: set().union(*map(self.canaries.found_in, seen)) for place, seen in places.items()}
        return {place: names for place, names in found.items() if names}

    def _delivery(self, text: str, nr: int = 0) -> Delivery:
        return Delivery(
            senders=(f"{self.canaries.sender}{nr}",),
            external_id=uuid4().hex,
            text=f"{text} {self.canaries.text}",
            button=self.canaries.button,
            attachments=(Attachment(url=f"https://cdn.example/{self.canaries.attachment}"),),
        )

    def _from(self, persona: Persona) -> Delivery:
        return self._delivery("hello").model_copy(
            update={"senders": persona.senders, "conversation": persona.conversation, "attachments": (), "button": None}
        )

    def _converse(self, web: Web) -> None:
        """Well-behaved, failing, dying and unstorable turns, and duplicates."""
        for nr, text in enumerate(("hello", "raise", "nul", "log", "forget", "nothing", *self.also)):
            delivery = self._delivery(text, nr)
            assert web.deliver("demo", delivery) == 202
            assert web.deliver("demo", delivery) == 202
            self.redis.append(everything_in(self.services.lanes.client))
        assert web.deliver("support", self._delivery("hello", 9)) in {200, 204}
        persona = provider_of(self.settings.channels["chat"]).persona(self.canaries.sender)
        assert web.deliver("chat", self._from(persona)) == 200

    def _be_hostile(self, web: Web) -> None:
        """Send what is refused, with canaries in every part."""
        delivery, query = self._delivery("hostile"), f"?token={self.canaries.query}"
        body = f'{{"user": "{self.canaries.sender}", "text": "{self.canaries.text}'.encode()
        signed = {
            "Content-Type": "application/json",
            "webhook-id": "m1",
            "webhook-timestamp": "1",
            "webhook-signature": f"v1,{self.canaries.query}",
        }
        assert web.deliver("demo", delivery, query, **{"webhook-signature": f"v1,{self.canaries.query}"}) == 401
        assert web.ask("POST", f"/webhooks/demo{query}", body, signed)[0] == 401
        assert web.ask("POST", "/webhooks/demo", b"\xff" + body, signed)[0] == 401
        assert web.ask("GET", f"/webhooks/demo/replies?user={self.canaries.sender[1:]}")[0] == 404
        assert web.ask("GET", f"/{self.canaries.query}{query}")[0] == 404
        assert web.ask("POST", f"/say/demo{query}", body, signed)[0] == 401
        assert web.ask("GET", "/metrics", headers={"Authorization": f"Bearer {self.canaries.query}"})[0] == 401
        assert web.deliver("demo", delivery, **{"X-Request-ID": f"{self.canaries.sender}"}) == 202

    def _offend_postgres(self, web: Web) -> None:
        """Let Postgres refuse a row, as a bug would: its error quotes the row."""
        for table in WITH_TEXT:
            self.services.database.rows(REFUSE_A_TEXT.format(table))
        try:
            assert web.deliver("demo", self._delivery("refused", 20)) == 202  # it is kept in quarantine
            assert (
                web.deliver("demo", self._delivery("answer-refused", 21).model_copy(update={"text": "offend"})) == 202
            )
            eventually(
                lambda: b"Postgres refuses what the handler returned" in (self.folder / "worker.log").read_bytes()
            )
        finally:
            for table in WITH_TEXT:
                self.services.database.rows(REFUSE_NONE.format(table))

    def _wait_until_settled(self) -> None:
        eventually(lambda: Rows(self.services.database).waiting() == 0)
        eventually(lambda: self.services.lanes.client.hlen("numbers"))
        eventually(lambda: b'"reply_postponed"' in (self.folder / "worker.log").read_bytes())

    def _look_around(self, web: Web, extra: dict[str, str]) -> None:
        self.redis.append(everything_in(self.services.lanes.client))
        token = {"Authorization": f"Bearer {self.canaries.metrics_token}"}
        for page in ("/metrics", "/autoscale.json", "/readyz", "/healthz"):
            status, body = web.ask("GET", page, headers=token)
            assert status == 200, page
            self.pages.append(body)
        user = str(user_of(self.services.database, "demo", f"{self.canaries.sender}1"))
        for command in (
            ["doctor"],
            ["lanes", "--json"],
            ["lane", user],
            ["session", "show", user],
            ["user", "show", user],
            ["dead", "list"],
            ["quarantine", "list"],
        ):
            self.commands.append(self._command(["-m", "onelane", *command], extra))
        self.commands.append(self._command(["-m", "rq.cli", "info", "--url", self.settings.redis_url], extra))

    def _command(self, command: list[str], extra: dict[str, str]) -> bytes:
        done = subprocess.run(
            [sys.executable, *command],
            env=environment(self.settings, **extra),
            capture_output=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        assert b"Traceback" not in said, said.decode()
        assert said
        return said


@pytest.fixture
def run(services: Services, settings: Settings, tmp_path: Path) -> Run:
    canaries = Canaries()
    channels = {
        "demo": Channel(provider="standard", secrets=(f"whsec_{canaries.standard_secret}",)),
        "support": Channel(provider="twilio", secrets=(canaries.twilio_secret,)),
        "chat": Channel(
            provider="telegram",
            secrets=(canaries.telegram_secret,),
            bot_token=canaries.bot_token,
            base_url="http://127.0.0.1:9",  # nobody listens there: the reply waits, and the log says so
        ),
    }
    changed = settings.model_copy(
        update={
            "database_url": settings.database_url.replace("postgres@", f"postgres:{canaries.database_password}@"),
            "channels": channels,
            "development": False,
            "attempts_max": 2,
            "lock_ttl_s": 1,
        }
    )
    assert canaries.database_password in changed.database_url
    return Run(canaries, services, changed, tmp_path)


@pytest.mark.slow
def test_no_canary_gets_out(run: Run) -> None:
    run.play()
    assert run.found == {}
    assert b'"turn_ended"' in (run.folder / "worker.log").read_bytes(), "logs were looked at, and there were some"
    assert {row.state for row in Rows(run.services.database).accepted()} == {"processed", "dead"}


@pytest.mark.slow
def test_no_canary_gets_out_of_a_suspects_own_process(run: Run) -> None:
    run.also = ("die",)
    run.play()
    assert run.found == {}


@pytest.mark.slow
def test_gunicorn_quotes_no_request_that_is_none(run: Run) -> None:
    log = run.folder / "web.log"
    with web_process(run.settings, run.folder, log_format="json") as port:
        web = Web(port, run.settings.channels)
        web.say(f'{{"user": "{run.canaries.sender}", "text": "{run.canaries.text}"}}\r\n\r\n'.encode())
        eventually(lambda: b"Invalid request" in log.read_bytes())
    assert run.canaries.found_in(log.read_bytes()) == set()
    assert all(line.startswith(b"{") for line in log.read_bytes().splitlines())


@pytest.mark.slow
def test_a_leak_in_every_place_is_found(run: Run) -> None:
    run.play(handler="tests.integration.test_canary:leak")
    assert {place: "text" in names for place, names in run.found.items()} == {
        "output of the worker": True,
        "Redis": True,
        "process list": True,
        "output of commands": True,
    }


@pytest.mark.parametrize("kind", ["string", "hash", "list", "set", "zset", "stream", "key"])
def test_a_leak_in_every_kind_of_redis_value_is_found(services: Services, kind: str) -> None:
    canaries, client = Canaries(), services.lanes.client
    plant = {
        "string": lambda: client.set("leak", canaries.text),
        "hash": lambda: client.hset("leak", "a", canaries.text),
        "list": lambda: client.rpush("leak", canaries.text),
        "set": lambda: client.sadd("leak", canaries.text),
        "zset": lambda: client.zadd("leak", {canaries.text: 1}),
        "stream": lambda: client.xadd("leak", {"a": canaries.text}),
        "key": lambda: client.set(canaries.text, "1"),
    }
    assert canaries.found_in(everything_in(client)) == set()
    plant[kind]()
    assert canaries.found_in(everything_in(client)) == {"text"}


@pytest.mark.parametrize(
    "disguise", [str, lambda word: base64.b64encode(word.encode()).decode(), lambda word: word.encode().hex()]
)
def test_a_disguised_leak_is_found(disguise: Callable[[str], str]) -> None:
    canaries = Canaries()
    assert canaries.found_in(f'{{"event": "{disguise(canaries.sender)}"}}'.encode()) == {"sender"}


def handle(turn: Turn) -> str | None:
    """Fail in the ways that handlers fail, quoting the user in each."""
    word = turn.message.text.partition(" ")[0]
    match word:
        case "raise":
            raise ValueError(turn.message.text)
        case "die" if turn.message.deaths < SUSPECT_AFTER_DEATHS:
            os.kill(os.getpid(), 9)
        case "die":  # as a suspect, in a process of its own
            _log_as_a_library_would(turn.message.text)
            crash = threading.Thread(target=_raise, args=(turn.message.text,))
            crash.start()
            crash.join()
            raise ValueError(turn.message.text)
        case "nul":
            return f"{turn.message.text}\0"
        case "log":
            _log_as_a_library_would(turn.message.text)
        case "forget":
            threading.Thread(target=_raise, args=(turn.message.text,)).start()
        case "nothing":
            return None
        case "offend":
            return "refused"
    return turn.message.text


def leak(turn: Turn) -> str | None:
    """Do what must not be done: write the text into the log, into Redis and onto a command line."""
    logging.getLogger("leaky").warning(turn.message.text)
    with redis.from_url(os.environ["REDIS_URL"]) as client:
        client.set("leak", turn.message.text)
        client.sadd("rq:queues", f"rq:queue:{turn.message.text}")
    subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)", turn.message.text], check=True)
    return handle(turn)


def _log_as_a_library_would(text: str) -> None:
    """Log an exception's text, which a library may not know to be a user's."""
    try:
        _raise(text)
    except ValueError as error:
        logging.getLogger("a.library").exception("it broke")
        logging.getLogger("a.library").warning("it broke: %s", error)


def _raise(text: str) -> None:
    raise ValueError(text)
