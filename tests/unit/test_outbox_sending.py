"""Requests to providers: one each, within bounds, and nothing of them is seen by anybody else."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from onelane.channels.sender import OnUnknown
from onelane.channels.sending import LookUp, Request
from onelane.channels.verdicts import Outcome, Response, Verdict, unknown
from onelane.outbox.postponing import AGAIN_S
from onelane.outbox.sending import ANSWER_MAX_BYTES, LOOK_UP_MAX, Sending, open_client
from onelane.outbox.shares import PAUSE_MAX_S, PAUSE_UNKNOWN_S, Shares
from tests import loops
from tests.shipping import TOKEN, PlainSender, waiting

Answer = Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]]


def sent(answer: Answer, deadline_s: float = 5) -> Verdict:
    sender = PlainSender(answer)

    async def send() -> Verdict:
        sending = Sending(sender, open_client(sender, 4), deadline_s)
        try:
            return await sending.send(waiting().outgoing(None))
        finally:
            await sending.close()

    return loops.run(send())


async def moved(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(307, headers={"Location": str(request.url)})


def test_nothing_is_followed_or_repeated() -> None:
    asked: list[httpx2.Request] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return await moved(request)

    assert sent(answer).outcome is Outcome.UNKNOWN
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (httpx2.ConnectError("x"), Outcome.NOT_NOW),
        (httpx2.ReadTimeout("x"), Outcome.UNKNOWN),
        (httpx2.RemoteProtocolError("x"), Outcome.UNKNOWN),
        (ValueError("x"), Outcome.UNKNOWN),
    ],
)
def test_a_request_without_an_answer_is_judged_by_its_error(error: Exception, outcome: Outcome) -> None:
    async def fail(_request: httpx2.Request) -> httpx2.Response:
        raise error

    assert sent(fail).outcome is outcome


def test_an_answer_without_an_end_is_cut_off() -> None:
    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=b" " * (ANSWER_MAX_BYTES + 1) + b'{"id": "p1"}')

    assert sent(answer).outcome is Outcome.UNKNOWN


def test_the_time_outs_are_those_of_the_reference_and_connections_are_bounded() -> None:
    client = open_client(PlainSender(), 7)._one_more()
    assert client.timeout.as_dict() == {"connect": 3, "read": 15, "write": 10, "pool": 1}
    assert (client.follow_redirects, client.trust_env) == (False, False)


def test_no_token_is_in_a_log_line_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError(f"reading {request.url}", request=request)

    logging.getLogger("httpx2").setLevel(logging.NOTSET)
    with caplog.at_level(logging.DEBUG), capture_logs() as lines:
        for answer in (moved, fail):
            assert TOKEN not in repr(sent(answer))
    assert TOKEN not in caplog.text + repr(lines)
    assert not [record for record in caplog.records if record.name.startswith(("httpx2", "httpcore2"))]


class Asked:
    """A look-up of so many requests."""

    def __init__(self, requests: int, *answers: httpx2.Response) -> None:
        self._requests, self._answers = requests, list(answers)
        self.asked = 0

    async def answer(self, _request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        return self._answers.pop(0) if self._answers else httpx2.Response(200, json={})

    def steps(self) -> LookUp:
        response: Response | None = None
        for _ in range(self._requests):
            response = yield Request.get("list", "http://provider.invalid/list", {}, {})
        return Verdict(Outcome.ACCEPTED, provider_id="p1") if response else unknown()

    def run(self) -> tuple[Verdict, float | None]:
        sender = PlainSender(self.answer, OnUnknown.ASK)

        async def ask() -> tuple[Verdict, float | None]:
            return await Sending(sender, open_client(sender, 4), 5).look_up(self.steps())

        return loops.run(ask())


def test_a_look_up_ends_with_its_verdict() -> None:
    assert Asked(3).run()[0].provider_id == "p1"


def test_a_look_up_makes_a_bounded_number_of_requests() -> None:
    endless = Asked(1_000)
    assert endless.run()[0].outcome is Outcome.UNKNOWN
    assert endless.asked == LOOK_UP_MAX


def test_a_look_up_says_how_long_its_provider_asks_to_wait() -> None:
    limited = Asked(1, httpx2.Response(429, headers={"Retry-After": "7"}))
    assert limited.run()[1] == 7


def test_a_channel_has_no_more_than_its_share_of_the_slots() -> None:
    shares, users = Shares(2), [waiting().id for _ in range(4)]
    with shares.place("slow", users[0]) as first, shares.place("slow", users[1]) as second:
        with shares.place("slow", users[2]) as third, shares.place("quick", users[3]) as other:
            assert (first, second, third, other) == (True, True, False, True)
            assert shares.known_to_be_full(users[2]) == "slow"
            assert shares.known_to_be_full(users[3]) is None
        assert shares.full == ["slow"]
    assert shares.known_to_be_full(users[2]) is None
    assert shares.full == []


def test_lanes_without_a_place_come_back_one_after_the_other_as_places_become_free() -> None:
    now = [100.0]
    shares, user = Shares(2, lambda: now[0]), waiting().id
    for _ in range(50):
        with shares.place("slow", user):
            now[0] += 2
    pauses = [shares.pause_s("slow", user) for _ in range(200)]
    first, rest = pauses[:58], pauses[58:]
    assert [round(later - sooner, 2) for sooner, later in pairwise(first)] == 57 * [1.0]
    assert all(PAUSE_MAX_S / 2 <= pause_s <= PAUSE_MAX_S for pause_s in rest)
    assert max(rest) - min(rest) > PAUSE_MAX_S / 4
    now[0] += 1_000
    assert shares.pause_s("slow", user) < 2
    one, other = (shares.pause_s("slow", user, workers=4) for _ in range(2))
    assert round(other - one, 2) == 0.25


def test_before_the_first_answer_all_lanes_come_back_together_and_soon() -> None:
    """Each was told a second, so that 500 lanes of a quick provider came back over 20 s."""
    now = [100.0]
    shares, user = Shares(2, lambda: now[0]), waiting().id
    with shares.place("new", user), shares.place("new", user):
        assert {shares.pause_s("new", user) for _ in range(500)} == {PAUSE_UNKNOWN_S}
        now[0] += 1.5 * PAUSE_UNKNOWN_S
        pauses = [shares.pause_s("new", user) for _ in range(3)]
    expected_s = 2 * 1.5 * PAUSE_UNKNOWN_S
    assert [round(later - sooner, 2) for sooner, later in pairwise(pauses)] == 2 * [expected_s / 2]
    assert AGAIN_S < PAUSE_UNKNOWN_S, "they can be postponed together again"


def test_places_that_are_taken_for_long_are_expected_to_be_taken_for_long() -> None:
    now = [100.0]
    shares, user = Shares(2, lambda: now[0]), waiting().id
    with shares.place("hangs", user):
        now[0] += 0.1
    with shares.place("hangs", user), shares.place("hangs", user):
        now[0] += 8
        pauses = [shares.pause_s("hangs", user) for _ in range(5)]
    assert [round(later - sooner, 2) for sooner, later in pairwise(pauses)] == 4 * [4.0]


def test_lanes_that_come_after_a_provider_has_become_quick_wait_behind_no_promise_of_before() -> None:
    now = [100.0]
    shares, user = Shares(2, lambda: now[0]), waiting().id
    for took_s in (10, 0.01):
        for _ in range(50):
            with shares.place("recovers", user):
                now[0] += took_s
        pauses = [shares.pause_s("recovers", user) for _ in range(10)]
    assert max(pauses) < 0.5


def test_an_in_process_transport_needs_no_net() -> None:
    assert sent(PlainSender().take).outcome is Outcome.ACCEPTED


def test_requests_share_one_loop_with_others_while_they_wait() -> None:
    started: list[Any] = []

    async def both() -> None:
        gate = asyncio.Event()

        async def answer(request: httpx2.Request) -> httpx2.Response:
            started.append(request)
            if len(started) == 2:
                gate.set()
            await gate.wait()
            return httpx2.Response(200, json={"id": "p1"})

        sender = PlainSender(answer)
        sending = Sending(sender, open_client(sender, 4), 5)
        outs = [waiting().outgoing(None) for _ in range(2)]
        verdicts = await asyncio.gather(*map(sending.send, outs))
        assert {verdict.outcome for verdict in verdicts} == {Outcome.ACCEPTED}

    loops.run(both())
