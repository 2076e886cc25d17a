"""The process of the fakes: it writes one line when it is ready, `{"address", "token"}`, and ends with its parent.

The control endpoint's token is FAKE_PROVIDERS_TOKEN from the environment, else a new one.
"""

import asyncio
import json
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

from onelane.config import Channel
from onelane.errors import ConfigError
from onelane.sources import channels_in
from onelane.testing.fake_providers.api import Api
from onelane.testing.fake_providers.callbacks import Callbacks
from onelane.testing.fake_providers.journal import Journal
from onelane.testing.fake_providers.meta import Meta
from onelane.testing.fake_providers.serving import HOST, Serving
from onelane.testing.fake_providers.slack import Slack
from onelane.testing.fake_providers.standard import Standard
from onelane.testing.fake_providers.telegram import Telegram
from onelane.testing.fake_providers.twilio import Twilio

APIS: Final[Mapping[str, type[Api]]] = {
    "meta": Meta,
    "slack": Slack,
    "standard": Standard,
    "telegram": Telegram,
    "twilio": Twilio,
}
WATCH_S: Final = 0.5


def main() -> None:
    """Read the command line and the environment, and serve."""
    parent = os.getppid()
    parser = ArgumentParser(prog="python -m onelane.testing.fake_providers", description="Fakes of providers' APIs.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True, help="the journal: a file of JSON lines")
    parser.add_argument("--callback", help="the address of the service's web; without it, nothing is called back")
    arguments = parser.parse_args()
    try:
        apis = apis_in(os.environ)
    except ConfigError as error:
        parser.error(str(error))
    asyncio.run(_serve(arguments, apis, parent))


def apis_in(environment: Mapping[str, str]) -> dict[str, Api]:
    """Make the fake of each channel that the service has, and whose provider has one."""
    channels = {name: Channel.of(given) for name, given in channels_in(environment).items()}
    return {
        name: APIS[channel.provider](name, channel) for name, channel in channels.items() if channel.provider in APIS
    }


async def _serve(arguments: Namespace, apis: Mapping[str, Api], parent: int) -> None:
    token = os.environ.get("FAKE_PROVIDERS_TOKEN") or token_urlsafe()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with Journal(arguments.log) as journal:
        async with Callbacks(journal, arguments.callback) as callbacks:
            serving = Serving(apis, journal, callbacks, token)
            port = await serving.open(arguments.port)
            sys.stdout.write(json.dumps({"address": f"http://{HOST}:{port}", "token": token}) + "\n")
            sys.stdout.flush()
            await _told_to_end(ended, parent)
            await serving.close()


async def _told_to_end(ended: asyncio.Event, parent: int) -> None:
    """Wait until we are told to end, or whoever started us is gone."""
    while not ended.is_set() and os.getppid() == parent:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), WATCH_S)


if __name__ == "__main__":
    main()
