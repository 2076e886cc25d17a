"""A phone without a tunnel: what Telegram has for a bot is asked for, and delivered to the web as a webhook is.

`python -m onelane.dev.run.polling CHANNEL PORT`, started by `onelane run` for each Telegram channel with a `bot_token`.
Telegram forgets an update when a later one is asked for, and that is done once the web has accepted it: what is
delivered twice is a duplicate.
"""

import json
import sys
import time
from http import HTTPStatus
from typing import Any, Final, NoReturn

import httpx2

from onelane.channels.telegram import JSON, TOKEN_HEADER, TelegramSettings
from onelane.channels.telegram.kinds import READERS
from onelane.config import Settings
from onelane.errors import EXIT_CONFIG, ConfigError
from onelane.model import JsonObject

LONG_POLL_S: Final = 30
ANSWER_S: Final = 10.0
PAUSE_S: Final = 3.0
UPDATES_MAX: Final = 100


class Polling:
    """One bot's updates, from Telegram to the web."""

    def __init__(self, settings: TelegramSettings, webhook: str) -> None:
        """Deliver to the address of the channel's webhook."""
        token = settings.bot_token.get_secret_value() if settings.bot_token else ""
        self._updates = f"{settings.base_url}/bot{token}/getUpdates"
        self._webhook = webhook
        self._headers = {"Content-Type": JSON, TOKEN_HEADER: settings.secrets[0].get_secret_value()}
        self._client = httpx2.Client(trust_env=False, timeout=LONG_POLL_S + ANSWER_S)
        self._offset = 0

    def run(self) -> NoReturn:
        """Go on for ever; raise ConfigError for what no waiting mends."""
        while True:
            try:
                self.round()
            except httpx2.HTTPError:
                time.sleep(PAUSE_S)  # neither address nor error is shown: the token is in them

    def round(self) -> int:
        """Ask once, wait for what comes, deliver it; return how many updates were accepted."""
        asked = {
            "offset": self._offset,
            "timeout": LONG_POLL_S,
            "limit": UPDATES_MAX,
            "allowed_updates": sorted(READERS),
        }
        answer = self._client.post(self._updates, json=asked)
        updates = _result(answer)
        for number, update in enumerate(updates):
            if not self._deliver(update):
                time.sleep(PAUSE_S)
                return number
            self._offset = update["update_id"] + 1
        return len(updates)

    def _deliver(self, update: JsonObject) -> bool:
        """Hand an update to the web; false when the web wants it again. What it refuses for good is skipped."""
        answer = self._client.post(self._webhook, content=json.dumps(update), headers=self._headers)
        return (
            answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status_code != HTTPStatus.TOO_MANY_REQUESTS
        )


def _result(answer: httpx2.Response) -> list[Any]:
    match answer.status_code:
        case HTTPStatus.OK:
            return list(answer.json()["result"])
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.NOT_FOUND:
            raise ConfigError("Telegram does not know this bot_token")
        case HTTPStatus.CONFLICT:
            raise ConfigError(
                "Telegram has a webhook for this bot, or somebody else asks for its updates: "
                "remove the webhook (deleteWebhook) to try the bot here"
            )
    time.sleep(PAUSE_S)
    return []


def main() -> None:
    """Poll for one channel, until we are told to end."""
    name, port = sys.argv[1:]
    channel = Settings.from_environment().channels[name]
    settings = TelegramSettings(**channel.own)
    try:
        Polling(settings, f"http://127.0.0.1:{port}/webhooks/{name}").run()
    except ConfigError as problem:
        sys.stderr.write(f"channel {name}: {problem}\n")
        sys.exit(EXIT_CONFIG)


if __name__ == "__main__":
    main()
