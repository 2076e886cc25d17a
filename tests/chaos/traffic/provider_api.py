"""The process that plays the provider's API, which takes the bot's replies.

    python -m tests.chaos.traffic.provider_api --port P [--seed N]

Environment: CHAOS_HISTORY. The bot finds it by CHAOS_API (`http://127.0.0.1:P`). It keeps nothing: killed, start it
again. While the file `provider_api.json` is in CHAOS_HISTORY, it fails as that says, with these probabilities:
`{"errors": 0.3, "hang": 0.1}`; errors are answered with 500, the others never.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import click

from tests.chaos.history import HISTORY, Recorder
from tests.chaos.stalls import watch_stalls

CONTROL = "provider_api.json"
HANG_S = 2.0


class Api(ThreadingHTTPServer):
    """Takes POSTs of JSON `{user_id, seq, texts}` with an Idempotency-Key."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, seed: int, history: Path) -> None:
        super().__init__(("127.0.0.1", port), Delivered)
        self.recorder = Recorder("api")
        watch_stalls(self.recorder)
        self._dice = Random(seed)
        self._control = history / CONTROL

    def answer(self) -> str:
        """Decide how to answer the next request."""
        try:
            faults = json.loads(self._control.read_text())
        except (OSError, ValueError):
            return "200"
        dice = self._dice.random()
        if dice < faults.get("errors", 0):
            return "500"
        return "none" if dice < faults.get("errors", 0) + faults.get("hang", 0) else "200"

    def handle_error(self, request: Any, client_address: object) -> None:
        """Say nothing of bots that died or waited no longer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Delivered(BaseHTTPRequestHandler):
    """One connection of a bot."""

    server: Api
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Note a reply, then answer."""
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answer()
        key = self.headers["Idempotency-Key"]
        self.server.recorder.note("delivered", key=key, user_id=told["user_id"], seq=told["seq"], answer=answer)
        if answer == "none":
            time.sleep(HANG_S)
            self.close_connection = True
            return
        self.send_response(int(answer))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the history has it."""


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--seed", type=int, default=0)
def main(port: int, seed: int) -> None:
    """Take replies until the process is ended."""
    with Api(port, seed, Path(os.environ[HISTORY])) as api:
        api.serve_forever()


if __name__ == "__main__":
    main()
