"""One webhook, from its bytes to its answer: verify, parse, accept what is understood, keep what is not."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from onelane.channels.normalizing import Normalizer
from onelane.channels.provider import Answer, Inbound, Parsed, Provider
from onelane.deliveries import Accepted, Delivery, IdentityChange, Ignored, Item, Quarantined, Status
from onelane.errors import BadRequest, InboxFull, StoreAway, StoreRefused, StoreUnavailable, describe
from onelane.inbox.intake import ANSWER_MAX_S, Intake, Note
from onelane.inbox.quarantine import Quarantine
from onelane.inbox.refusals import gravest
from onelane.inbox.statuses import Statuses
from onelane.postgres.breaker import Breaker
from onelane.telemetry import tracing
from onelane.telemetry.log import event
from onelane.telemetry.numbers import IGNORED, QUARANTINED

RECEIVE_MAX_S: Final = 2.5
"""From the arrival of a webhook until it begins no more wait, half a second for Redis at most: providers take 3 s."""
LEAST_S: Final = 0.5
"""What is left to a webhook that has waited for a thread for long."""
NOTHING: Final = "nothing"
ANSWERED: Final = "answered"
"""Counted among what is ignored: a webhook that holds nothing, and one that only asks for an answer."""
NOT_UNDERSTOOD: Final = "not_understood"
NOT_STORABLE: Final = "not_storable"
"""Why something is quarantined, in a word: by its adapter, or by Postgres."""


class Receiving:
    """Receives the webhooks of all channels."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        breaker: Breaker,
        intake: Intake,
        statuses: Statuses,
        quarantine: Quarantine,
        normalizers: Mapping[str, Normalizer] | None = None,
    ) -> None:
        """Take what each channel has, by its name; few have a normalizer."""
        self._providers = providers
        self._breaker = breaker
        self._intake = intake
        self._statuses = statuses
        self._quarantine = quarantine
        self._normalizers = normalizers or {}

    def receive(
        self, channel: str, request: Inbound, note: Note, waited_s: float = 0.0, *, is_full: bool = False
    ) -> Answer:
        """Return the answer to a webhook of which everything stands or is kept: it may be 2xx.

        `note` gets each line as it stands. Raise a DeliveryError for what is not signed, of which nothing is kept;
        StoreUnavailable or BacklogFull if something of it was not taken: what stands is a duplicate when the provider
        delivers it again. `waited_s` is how long it has waited for us already. When the inbox `is_full`, statuses
        are taken, and InboxFull is raised for a webhook that holds anything else.
        """
        ends = time.monotonic() + max(LEAST_S, RECEIVE_MAX_S - waited_s)
        provider, began_ns = self._providers[channel], time.time_ns()
        provider.verify(request)
        # Whoever has not signed names no trace, and makes no span.
        with tracing.webhook(channel, request.header("traceparent"), began_ns) as span:
            answer = self._received(channel, provider, request, note, ends, is_full=is_full)
            span.note({"http.response.status_code": answer.status})
        return answer

    def _received(
        self, channel: str, provider: Provider, request: Inbound, note: Note, ends: float, *, is_full: bool
    ) -> Answer:
        """Take a verified webhook."""
        parsed = parse(provider, request)
        items = self._normalized(channel, parsed.items) or [Ignored(ANSWERED if parsed.answer else NOTHING)]
        if not self._breaker.lets_ask(_left_s(ends)):
            raise StoreAway("Postgres is away")
        has_room = not is_full or all(isinstance(item, Status | Ignored) for item in items)
        taken = items if has_room else [item for item in items if isinstance(item, Status)]
        accepted, problems = self._taken(channel, taken, note, redelivers=provider.redelivers, ends=ends)
        if not has_room:
            raise InboxFull
        if reasons := reasons_of(items, problems):
            self._quarantine.keep(channel, request, reasons, _left_s(ends))
        _raise_what_comes_again(problems)
        return parsed.answer or provider.answer(accepted)

    def again(self, channel: str, request: Inbound, note: Note) -> list[str]:
        """Take a verified webhook as its adapter understands it today; return why some of it is not understood still.

        Raises as `receive`. What stood before is a duplicate.
        """
        provider = self._providers[channel]
        items = self._normalized(channel, parse(provider, request).items)
        ends = time.monotonic() + RECEIVE_MAX_S
        _, problems = self._taken(channel, items, note, redelivers=True, ends=ends)
        _raise_what_comes_again(problems)
        return reasons_of(items, problems)

    def _normalized(self, channel: str, items: Sequence[Item]) -> Sequence[Item]:
        """Spell all identifiers as the channel wants them."""
        normalizer = self._normalizers.get(channel)
        return [normalizer(item) for item in items] if normalizer else items

    def _taken(
        self, channel: str, items: Sequence[Item], note: Note, *, redelivers: bool, ends: float
    ) -> tuple[list[Accepted], list[BaseException]]:
        """Store all items; return the lines that stand, and what went wrong. With Postgres away, that is raised."""
        lines = [item for item in items if isinstance(item, Delivery | IdentityChange)]
        until = min(ends, time.monotonic() + ANSWER_MAX_S)
        outcomes = self._intake.outcomes(channel, lines, note, redelivers=redelivers, ends=until) if lines else []
        accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
        problems = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if isinstance(away := gravest(problems), StoreAway):
            raise away
        if statuses := [item for item in items if isinstance(item, Status)]:
            try:
                self._statuses.note(channel, statuses, _left_s(ends))
            except (StoreUnavailable, StoreRefused) as problem:
                problems.append(problem)
        for item in items:
            if isinstance(item, Ignored):
                IGNORED.count(item.what)
        return accepted, problems


def _left_s(ends: float) -> float:
    """Return what is left of the request's time; raise StoreUnavailable when it is over."""
    if (left_s := ends - time.monotonic()) <= 0:
        raise StoreUnavailable("the request has no time left")
    return left_s


def parse(provider: Provider, request: Inbound) -> Parsed:
    """Return what a verified request holds. A bug of its adapter is no reason to lose it: it goes into quarantine."""
    try:
        return provider.parse(request)
    except BadRequest as problem:
        return Parsed([Quarantined(str(problem))])
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises, its provider delivers the same again
        event("adapter_failed", failure=describe(error))
        return Parsed([Quarantined(f"the adapter failed: {type(error).__name__}")])


def reasons_of(items: Sequence[Item], problems: Sequence[BaseException]) -> list[str]:
    """Count and return why a webhook goes into quarantine; none: it does not."""
    not_understood = [item.reason for item in items if isinstance(item, Quarantined)]
    not_storable = [str(problem) for problem in problems if isinstance(problem, StoreRefused)]
    for kind, reasons in ((NOT_UNDERSTOOD, not_understood), (NOT_STORABLE, not_storable)):
        if reasons:
            QUARANTINED.count(kind, len(reasons))
    return not_understood + not_storable


def _raise_what_comes_again(problems: Sequence[BaseException]) -> None:
    """Raise the gravest of the problems that a repetition may mend."""
    if problem := gravest([one for one in problems if not isinstance(one, StoreRefused)]):
        raise problem
