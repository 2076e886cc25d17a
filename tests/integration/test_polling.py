"""Telegram without a tunnel: updates are asked for, and confirmed once the web has them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from onelane.channels.telegram import TelegramSettings
from onelane.dev.run import polling
from onelane.dev.run.polling import Polling
from onelane.errors import ConfigError

TOKEN = "123456:" + "A" * 35
SECRET = "a-secret-of-sixteen-letters"


class Ends:
    """Telegram and our web, on one server."""

    def __init__(self) -> None:
        self.updates: list[dict[str, object]] = [{"update_id": number, "message": {}} for number in (7, 8, 9)]
        self.offsets: list[int] = []
        self.delivered: list[int] = []
        self.secrets: set[str | None] = set()
        self.telegram_status = 200
        self.web_statuses: list[int] = []
        self.origin = ""

    def answer(self, path: str, secret: str | None, body: dict[str, int]) -> tuple[int, object]:
        if path == f"/bot{TOKEN}/getUpdates":
            self.offsets.append(body["offset"])
            found = [update for update in self.updates if int(str(update["update_id"])) >= body["offset"]]
            return self.telegram_status, {"ok": True, "result": found}
        self.secrets.add(secret)
        self.delivered.append(body["update_id"])
        return (self.web_statuses.pop(0) if self.web_statuses else 200), {}


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = ends.answer(self.path, self.headers.get("X-Telegram-Bot-Api-Secret-Token"), body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    ends.origin = f"http://127.0.0.1:{server.server_port}"
    yield ends
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def poller(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> Polling:
    monkeypatch.setattr(polling, "PAUSE_S", 0)
    settings = TelegramSettings(secrets=(SecretStr(SECRET),), bot_token=SecretStr(TOKEN), base_url=ends.origin)
    return Polling(settings, f"{ends.origin}/webhooks/support")


def test_updates_are_delivered_in_order_as_webhooks_and_then_confirmed(ends: Ends, poller: Polling) -> None:
    assert poller.round() == 3
    assert ends.delivered == [7, 8, 9]
    assert ends.secrets == {SECRET}
    assert poller.round() == 0
    assert ends.offsets == [0, 10]


@pytest.mark.parametrize("status", [503, 429])
def test_what_the_web_did_not_accept_is_asked_for_again(ends: Ends, poller: Polling, status: int) -> None:
    ends.web_statuses = [200, status]
    assert poller.round() == 1
    assert poller.round() == 2
    assert ends.delivered == [7, 8, 8, 9]


def test_what_the_web_refuses_for_good_holds_up_nothing(ends: Ends, poller: Polling) -> None:
    ends.web_statuses = [400]
    assert poller.round() == 3


@pytest.mark.parametrize(("status", "said"), [(401, "does not know this bot_token"), (409, "has a webhook")])
def test_what_no_waiting_mends_is_said_without_the_token(ends: Ends, poller: Polling, status: int, said: str) -> None:
    ends.telegram_status = status
    with pytest.raises(ConfigError, match=said) as problem:
        poller.round()
    assert TOKEN not in str(problem.value)
