"""How a test tells the fakes what goes wrong: requests below `/.control/`, with a token.

| request | body |
|---|---|
| `POST /.control/faults` | `faults`: names or fields, `count`, `channel`, `what` (`send`; `any`), `text`: the next |
| `POST /.control/random` | `faults`, `share`, `seed`, `channel`, `what`: from now on |
| `POST /.control/clear` | nothing goes wrong any more |
| `POST /.control/callbacks` | the fields of a `Policy`, `channel`, `url`: where the service is |
| `POST /.control/echo` | `channel`, `user`, `text`: a colleague wrote |
| `POST /.control/duplicates` | `channel`, `duplicates`: what Slack does with a known client_msg_id |
| `POST /.control/deaf` | `for_s`: refuse connections, and reset those that are open |
| `GET /.control/state` | answers `planned` and `pending` |
"""

import asyncio
import hmac
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, cast, get_args

from onelane.errors import BadRequest
from onelane.model import JsonObject
from onelane.testing.fake_providers.api import Api
from onelane.testing.fake_providers.callbacks import Callbacks, Policy
from onelane.testing.fake_providers.faults import Plan
from onelane.testing.fake_providers.http import Answer, Request, answer_of
from onelane.testing.fake_providers.slack import Duplicates, Slack

CONTROL: Final = ".control"
DEAF_MAX_S: Final = 600.0
SOON_S: Final = 0.05
"""The answer is written first."""


class Control:
    """The control endpoint."""

    def __init__(
        self,
        apis: Mapping[str, Api],
        plan: Plan,
        callbacks: Callbacks,
        be_deaf: Callable[[float], Coroutine[Any, Any, None]],
        token: str,
    ) -> None:
        """Change `plan`, `callbacks` and the rest for whoever has the token."""
        self._apis = apis
        self._plan = plan
        self._callbacks = callbacks
        self._be_deaf = be_deaf
        self._token = token
        self._deaf: asyncio.Task[None] | None = None
        self._commands: Mapping[str, Callable[[JsonObject], object]] = {
            "/faults": plan.add,
            "/random": plan.play,
            "/clear": lambda _: plan.clear(),
            "/callbacks": self._set_callbacks,
            "/echo": lambda given: callbacks.echo(self._api(given), given),
            "/duplicates": self._set_duplicates,
            "/deaf": self._go_deaf,
            "/state": lambda _: None,
        }

    def answer(self, request: Request) -> Answer:
        """Obey, and answer with the state."""
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return answer_of({"error": "the token is missing or wrong"}, 401)
        command = self._commands.get(request.path)
        if command is None:
            return answer_of({"error": f"must be one of {', '.join(self._commands)}"}, 404)
        try:
            command(request.json())
        except (ValueError, TypeError, KeyError, BadRequest) as problem:
            return answer_of({"error": str(problem)}, 400)
        return answer_of({"planned": self._plan.planned, "pending": self._callbacks.pending})

    def _api(self, given: JsonObject) -> Api:
        if given.get("channel") not in self._apis:
            raise ValueError(f"channel must be one of {', '.join(self._apis)}")
        return self._apis[given["channel"]]

    def _set_callbacks(self, given: JsonObject) -> None:
        policy = {name: value for name, value in given.items() if name not in {"channel", "url"}}
        self._callbacks.set_policy(given.get("channel"), Policy.of(policy))
        if "url" in given:
            self._callbacks.base_url = given["url"]

    def _set_duplicates(self, given: JsonObject) -> None:
        api, way = self._api(given), str(given.get("duplicates"))
        if not isinstance(api, Slack) or way not in get_args(Duplicates):
            raise ValueError(f"of a Slack channel, duplicates must be one of {', '.join(get_args(Duplicates))}")
        api.duplicates = cast(Duplicates, way)

    def _go_deaf(self, given: JsonObject) -> None:
        for_s = min(float(given.get("for_s", 1)), DEAF_MAX_S)
        self._deaf = asyncio.create_task(self._deaf_soon(for_s))

    async def _deaf_soon(self, for_s: float) -> None:
        await asyncio.sleep(SOON_S)
        await self._be_deaf(for_s)
