"""What the fakes tell the service of what they have taken: statuses and echoes, signed as the provider signs."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit

import httpx2

from onelane.channels import Signed
from onelane.deliveries import Delivery, Kind, Status
from onelane.model import JsonObject
from onelane.testing.fake_providers.api import Api, Message
from onelane.testing.fake_providers.journal import Journal

When = Literal["at_once", "before", "late", "never"]
WHEN: Final = frozenset(get_args(When))
STATES: Final = ("sent", "delivered", "read", "failed")
AT_ONCE_MAX: Final = 32
PENDING_MAX: Final = 50_000
TRIES_MAX: Final = 60
ANSWERED_S: Final = 30.0
BEFORE_S: Final = 5.0
RETRY_S: Final = 0.2
RETRY_MAX_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How a channel's provider calls back."""

    when: When = "at_once"
    """`before`: the answer to the send waits until the callbacks have been answered, at most BEFORE_S."""
    states: tuple[str, ...] = ("sent", "delivered")
    late_s: float = 2.0
    shuffled: bool = False
    doubled: bool = False
    echoes: bool = False
    """Whether our own messages come back as events, where the provider has such."""
    seed: int = 0

    @classmethod
    def of(cls, given: JsonObject) -> Self:
        """Read a policy. Raise ValueError."""
        try:
            policy = cls(**given)
        except TypeError as error:
            raise ValueError(str(error)) from None
        if policy.when not in WHEN or not set(policy.states) <= set(STATES):
            raise ValueError(f"when must be one of {', '.join(sorted(WHEN))}, states of {', '.join(STATES)}")
        return replace(policy, states=tuple(policy.states))


class Callbacks:
    """Posts webhooks to the service, a bounded number at once."""

    def __init__(self, journal: Journal, base_url: str | None) -> None:
        """Post to `base_url`, whatever host the service has for the world; None: nowhere."""
        self.base_url = base_url
        self._journal = journal
        self._policies: dict[str | None, Policy] = {None: Policy()}
        self._random = Random(0)  # noqa: S311 - to be repeated, not to be secret
        self._client = httpx2.AsyncClient(trust_env=False, timeout=ANSWERED_S)
        self._room = asyncio.Semaphore(AT_ONCE_MAX)
        self._pending: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """How many messages still have callbacks to come."""
        return len(self._pending)

    def set_policy(self, channel: str | None, policy: Policy) -> None:
        """Call back so from now on; without a channel, for all that have no policy of their own."""
        self._policies[channel] = policy
        self._random = Random(policy.seed)  # noqa: S311 - as above

    async def tell(self, api: Api, message: Message, failure: str | None) -> None:
        """Say what became of a message: now, if the answer has to wait for it, or later."""
        policy = self._policies.get(api.name, self._policies[None])
        if self.base_url is None or policy.when == "never":
            return
        posting = self._tell_all(api, message, policy, failure)
        if policy.when == "before":
            await asyncio.wait({self._begin(posting)}, timeout=BEFORE_S)
        elif self.pending < PENDING_MAX:
            self._begin(posting)
        else:
            posting.close()

    def echo(self, api: Api, given: JsonObject) -> None:
        """Report what a colleague wrote to somebody from the provider's own app. Raise BadRequest, KeyError."""
        line = Delivery(
            senders=(given["user"],), external_id=f"echo-{api.number()}", kind=Kind.ECHO, text=given.get("text", "")
        )
        signed = api.adapter.sign(self._webhook(api), line)
        self._begin(self._post(api, self._webhook(api), signed, state="echo"))

    def _begin(self, posting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(posting)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task

    async def _tell_all(self, api: Api, message: Message, policy: Policy, failure: str | None) -> None:
        if policy.when == "late":
            await asyncio.sleep(policy.late_s)
        webhook = self._webhook(api)
        if policy.echoes and (echo := api.echo(message)):
            await self._post(api, webhook, api.adapter.sign(webhook, echo), state="echo", message=message)
        address = api.status_address(message, webhook)
        for state in self._states(policy, failure) if address else ():
            status = Status(
                provider_id=message.provider_id,
                state=state,
                key=message.uuid,
                at=datetime.now(UTC),
                failure_code=failure if state == "failed" else None,
            )
            await self._post(api, address or "", api.adapter.sign(address or "", status), state, message)

    def _states(self, policy: Policy, failure: str | None) -> Sequence[str]:
        states = ["failed"] if failure else [state for state in policy.states for _ in range(1 + policy.doubled)]
        if policy.shuffled:
            self._random.shuffle(states)
        return states

    def _webhook(self, api: Api) -> str:
        return f"{self.base_url}/webhooks/{api.name}"

    async def _post(self, api: Api, url: str, signed: Signed, state: str, message: Message | None = None) -> None:
        """Post one webhook, again and again where the provider delivers again."""
        target = f"{self.base_url}{urlsplit(url).path}{signed.query}"
        for number in range(TRIES_MAX if api.adapter.redelivers else 1):
            if number:
                await asyncio.sleep(min(RETRY_S * 2**number, RETRY_MAX_S))
            status = await self._answer(target, signed)
            self._journal.write(
                "callback",
                channel=api.name,
                key=message.call.key if message else None,
                provider_id=message.provider_id if message else None,
                state=state,
                status=status,
            )
            if httpx2.codes.is_success(status):
                return

    async def _answer(self, url: str, signed: Signed) -> int:
        async with self._room:
            try:
                answer = await self._client.post(url, content=signed.body, headers=dict(signed.headers))
            except httpx2.HTTPError:
                return 0
        return answer.status_code

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for task in self._pending:
            task.cancel()
        await self._client.aclose()
