"""The fake model's process: it writes one line when it is ready, `{"address", "token"}`, and ends with its parent."""

import asyncio
import json
import os
import signal
import sys
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

from onelane.testing.fake_model.serving import HOST, Serving
from onelane.testing.fake_providers.journal import Journal

WATCH_S: Final = 0.5


def main() -> None:
    """Read the command line, and serve."""
    parser = ArgumentParser(prog="python -m onelane.testing.fake_model", description="A fake model.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True, help="the journal: a file of JSON lines")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    given = parser.parse_args()
    with Journal(given.log) as journal:
        token = token_urlsafe()
        asyncio.run(_serve(Serving(journal, token, given.delay), given.port, token, os.getppid()))


async def _serve(serving: Serving, port: int, token: str, parent: int) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = await serving.open(port)
    address = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/v1"
    sys.stdout.write(json.dumps({"address": address, "token": token}) + "\n")
    sys.stdout.flush()
    while not ended.is_set() and os.getppid() == parent:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), WATCH_S)
    server.close()


if __name__ == "__main__":
    main()
