"""Every fault of every provider: users see each reply once and in order, or the service says what became of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from onelane.bootstrap import Services
from onelane.channels.meta import codes as meta
from onelane.channels.slack import codes as slack
from onelane.channels.telegram.codes import DESCRIBED
from onelane.channels.twilio import codes as twilio
from onelane.channels.verdicts import Meaning, Outcome, Scope
from onelane.config import Settings
from onelane.postgres.connection import Row
from onelane.testing.fake_providers import FAULTS, FakeProviders, Fault
from tests.conftest import RunWorker, eventually
from tests.outbound import CHANNELS, TAKEN, Outbound, by_text, fakes_of, hurry, outbound, problems, sending_to

CALLBACKS: Final[Mapping[str, Mapping[str, object]]] = {
    "before": {"when": "before"},
    "late": {"when": "late", "late_s": 0.5},
    "mixed": {"states": ["sent", "delivered", "read"], "shuffled": True, "doubled": True, "seed": 3},
}
WITH_STATUSES: Final = ("meta", "twilio")
TOLD: Final = ("none", "slow", "accept_and_drop", "closed", "accept_and_silent")
"""Faults that meet each way to call back."""
ASKED: Final = frozenset({"slack", "twilio"})
"""Their providers can be asked what became of a reply."""
HARMLESS: Final = frozenset({"standard"})
"""Their providers take a repetition for what it is."""
EACH: Final = 2
DONE_S: Final = 60.0
LATE_MAX: Final = 0.5
"""Of the replies that meet no fault, two a user: a busy machine answers some after the short deadline."""
NEVER_CODES: Final[Mapping[str, Mapping[str, Meaning]]] = {
    "meta": meta.CODES,
    "slack": slack.CODES,
    "twilio": twilio.CODES,
    "telegram": {f"{code}: {words}": meaning for (code, words), meaning in DESCRIBED.items()},
    "standard": {},
}
BREAKS: Final[Mapping[str, Fault]] = {
    "meta": Fault("answer", code="190"),
    "slack": Fault("answer", code="invalid_auth"),
    "standard": Fault("status", code="410"),
    "telegram": Fault("answer", code="401"),
    "twilio": Fault("answer", code="20003"),
}
"""What each provider answers to everything once a token is no longer good, or an address is gone."""
WELL: Final = "{}-well"
"""Another channel of the same provider, which stays well."""
BROKEN: Final = "SELECT channel FROM channel_holds WHERE broken_at IS NOT NULL"
SETTLED_S: Final = 60.0
PATIENT: Final = ("send_deadline_s", "unknown_hold_s")
ALL_CHANNELS = {
    **CHANNELS,
    **{WELL.format(name): channel for name, channel in CHANNELS.items()},
    **{f"{name}-{way}": CHANNELS[name] for name in WITH_STATUSES for way in CALLBACKS},
}


@dataclass(frozen=True)
class Case:
    """One fault, and the channel that meets it."""

    channel: str
    name: str
    fault: Fault
    meaning: Meaning | None = None
    """Of a code of the provider's own."""

    @property
    def users(self) -> list[str]:
        """What the users write who meet it: in the second of three replies."""
        return [f"{self.name} on {self.channel} {number}" for number in range(EACH)]


def cases_of(provider: str) -> list[Case]:
    """List all that can go wrong with a provider, but what breaks its channel."""
    named = {**FAULTS, "limit": Fault("limit", wait_s=0.3), "slow": Fault("answer", times=1, wait_s=0.3)}
    cases = [Case(provider, name, fault) for name, fault in named.items()]
    cases += [
        Case(provider, f"code {code}", Fault("answer", code=code.replace("*", "x")), meaning)
        for code, meaning in list(NEVER_CODES[provider].items())
        if meaning.outcome is not Outcome.BROKEN and meaning.scope is not Scope.CHANNEL and not _is_one_of_many(code)
    ]
    ways = CALLBACKS if provider in WITH_STATUSES else ()
    return cases + [Case(f"{provider}-{way}", name, named[name]) for way in ways for name in TOLD]


def _is_one_of_many(code: str) -> bool:
    """Leave out most of Meta's hundred codes about templates."""
    return code.startswith("1320") and code != "132000"


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProviders]:
    folder: Path = tmp_path_factory.mktemp("fakes")
    with fakes_of(ALL_CHANNELS, folder) as fakes:
        yield fakes


@pytest.fixture
def settings(settings: Settings, fakes: FakeProviders) -> Settings:
    return sending_to(fakes, ALL_CHANNELS, settings)


@pytest.mark.slow
@pytest.mark.parametrize("provider", CHANNELS)
def test_whatever_goes_wrong_replies_arrive_once_in_order_or_their_fate_is_shown(
    provider: str,
    services: object,
    settings: Settings,
    fakes: FakeProviders,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    cases = cases_of(provider)
    with outbound(services, settings, fakes) as service:  # type: ignore[arg-type]
        for way, policy in CALLBACKS.items():
            fakes.call_back(channel=f"{provider}-{way}", **policy)
        for case in cases:
            for user in case.users:
                fakes.plan(case.fault, channel=case.channel, text=f"{user}: 2")
            service.write(case.channel, *case.users)
        with run_worker(settings):
            eventually(service.is_done, DONE_S)
        eventually(lambda: not _still_to_be_known(service, provider), DONE_S)
        assert problems(service) == []
        judge(service, cases)


@pytest.mark.slow
def test_a_channel_that_breaks_stops_alone_whoever_its_provider_is_and_nothing_of_it_is_lost_or_sent_twice(
    services: Services, settings: Settings, fakes: FakeProviders, run_worker: RunWorker
) -> None:
    assert BREAKS.keys() == CHANNELS.keys()
    settings = settings.model_copy(update={"send_deadline_s": 20})  # those that are well have the time to be
    with outbound(services, settings, fakes) as service, run_worker(settings):
        for channel, fault in BREAKS.items():
            fakes.play(fault, share=1, channel=channel)
        waiting = [user for channel in BREAKS for user in service.write(channel, f"a {channel}", f"b {channel}")]
        eventually(lambda: {row.channel for row in services.database.rows(BROKEN)} == set(BREAKS))
        for channel in BREAKS:
            service.write(WELL.format(channel), f"well {channel}")
        eventually(lambda: [row.state in TAKEN for row in _of_the_well(service)] == [True] * 3 * len(BREAKS), DONE_S)
        assert {row.state for row in service.replies() if row.channel in BREAKS} == {"pending"}
        asked = len(list(fakes.received.lines("received", what="send")))
        for user in waiting:
            services.out_lanes.make_due(user)
        service.write(WELL.format("meta"), "later")
        eventually(lambda: [row.state in TAKEN for row in _of_the_well(service)] == [True] * 3 * (len(BREAKS) + 1))
        assert len(list(fakes.received.lines("received", what="send"))) == asked + 3, "a broken channel is not asked"
        fakes.clear()
        eventually(lambda: _probed(service, waiting), DONE_S)
        assert problems(service) == []
        assert {row.state for row in service.replies()} <= TAKEN


@pytest.mark.slow
def test_with_the_waits_of_a_deployment_the_fate_of_every_reply_is_known_within_a_minute(
    services: Services, settings: Settings, fakes: FakeProviders, run_worker: RunWorker
) -> None:
    """All other tests shorten the waits. Twilio and Slack are asked; Meta sends a status of what it has taken."""
    patient = settings.model_copy(update={name: Settings.model_fields[name].default for name in PATIENT})
    with outbound(services, patient, fakes) as service:
        for channel in (*ASKED, "meta"):
            for name, fault in FAULTS.items():
                if channel in ASKED or fault.times:
                    fakes.plan(fault, channel=channel, text=f"{name} on {channel}: 2")
                    service.write(channel, f"{name} on {channel}")
        with run_worker(patient):
            eventually(lambda: service.is_done() and {row.state for row in service.replies()} <= TAKEN, SETTLED_S)
        assert problems(service) == []


def _of_the_well(service: Outbound) -> list[Row]:
    return [row for row in service.replies() if row.channel not in BREAKS]


def _probed(service: Outbound, waiting: Sequence[UUID]) -> bool:
    """Let each broken channel be probed at once, and what waits for it be tried; whether all is done."""
    service.services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp() WHERE broken_at IS NOT NULL")
    service.services.out_lanes.make_all_due(waiting)
    return service.is_done()


def judge(service: Outbound, cases: list[Case]) -> None:
    """See what became of the reply that met the fault, and that the lane went on."""
    replies, late = by_text(service.replies()), 0
    for case in cases:
        for user in case.users:
            first, faulted, third = (replies[f"{user}: {number}"] for number in (1, 2, 3))
            may_be = {*TAKEN, "unknown"} if not case.meaning else {*TAKEN, "unknown", "failed"}
            assert faulted.state in may_be, f"{case}: {faulted.state}"
            late += [first.state, third.state].count("unknown")
            assert {first.state, third.state} <= {*TAKEN, "unknown"}, f"{case}: {first.state}, {third.state}"
            if case.meaning and case.meaning.outcome is Outcome.NEVER:
                late += faulted.state == "unknown"  # the machine was busy: the refusal came behind the deadline
                assert faulted.state == "unknown" or faulted.failure == case.meaning.word, case
    assert late <= len(cases) * EACH * LATE_MAX, f"{late} replies that met no fault"


def _still_to_be_known(service: Outbound, provider: str) -> list[str]:
    """List unknown replies of which the provider's word can be had: by asking, or by the status of what it has taken.

    The status may come after the reply was given up.
    """
    taken = {message.text for message in service.fakes.received.visible()} if provider == "meta" else set()
    return [
        reply.text
        for reply in service.replies()
        if reply.state == "unknown" and (provider in ASKED | HARMLESS or reply.text in taken)
    ]
