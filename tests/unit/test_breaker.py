"""Many threads that ask a server which is away: one of them probes, the others are refused at once."""

import threading
from collections.abc import Callable, Iterator

import pytest

from onelane.errors import StoreAway, StoreUnavailable
from onelane.postgres import breaker
from onelane.postgres.breaker import Breaker
from tests.conftest import DEADLINE_S, eventually


class Probe:
    """Answers, or fails, and counts."""

    def __init__(self) -> None:
        self.times = 0
        self.fails = False
        self.error: StoreUnavailable = StoreAway("away")
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> None:
        self.times += 1
        self.meanwhile()
        if self.fails:
            raise self.error


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def goes_on() -> Iterator[threading.Event]:
    """What a probe waits for."""
    goes_on = threading.Event()
    yield goes_on
    goes_on.set()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass between two probes."""
    monkeypatch.setattr(breaker, "PROBE_PAUSE_S", 0.0)


def test_a_server_that_is_there_is_asked_without_a_probe(probe: Probe) -> None:
    assert Breaker(probe).lets_ask(DEADLINE_S)
    assert probe.times == 0


def test_right_after_a_failure_everybody_is_refused_without_a_probe(probe: Probe) -> None:
    tested = Breaker(probe)
    tested.open("away")
    assert not tested.lets_ask(DEADLINE_S)
    assert probe.times == 0


@pytest.mark.usefixtures("at_once")
def test_it_is_asked_again_as_soon_as_a_probe_succeeds(probe: Probe) -> None:
    tested, probe.fails = Breaker(probe), True
    tested.open("away")
    assert not tested.lets_ask(DEADLINE_S)
    probe.fails = False
    assert tested.lets_ask(DEADLINE_S)
    assert not tested.is_open


@pytest.mark.usefixtures("at_once")
def test_one_who_got_no_answer_makes_a_probe_find_out_and_everybody_goes_on_until_it_has(
    probe: Probe, goes_on: threading.Event
) -> None:
    """Those who came meanwhile were refused, although Postgres was well."""
    tested, probe.fails = Breaker(probe), True
    probe.meanwhile = lambda: goes_on.wait(DEADLINE_S)
    tested.suspect()
    eventually(lambda: probe.times == 1)
    tested.suspect()
    assert tested.lets_ask(DEADLINE_S)
    assert tested.lets_lease()
    assert probe.times == 1
    goes_on.set()
    eventually(lambda: tested.is_open)


@pytest.mark.parametrize("error", [None, StoreUnavailable("the pool is used up")])
def test_a_suspected_server_that_answers_or_that_no_probe_could_ask_is_not_away(
    probe: Probe, error: StoreUnavailable | None
) -> None:
    tested = Breaker(probe)
    probe.fails, probe.error = error is not None, error or probe.error
    tested.suspect()
    eventually(lambda: probe.times == 1 and not tested._asking.locked())
    assert not tested.is_open


@pytest.mark.usefixtures("at_once")
def test_who_waits_for_a_probe_leaves_in_time(probe: Probe, goes_on: threading.Event) -> None:
    tested, probe.meanwhile = Breaker(probe), lambda: goes_on.wait(DEADLINE_S)
    tested.open("away")
    assert not tested.lets_ask(0.01)
    goes_on.set()
    eventually(lambda: not tested.is_open)


@pytest.mark.usefixtures("at_once")
def test_while_one_probes_the_others_are_refused_at_once(probe: Probe) -> None:
    tested, answers = Breaker(probe), []
    tested.open("away")

    def ask_beside() -> None:
        other = threading.Thread(target=lambda: answers.append(tested.lets_ask(DEADLINE_S)))
        other.start()
        other.join()

    probe.meanwhile = ask_beside
    assert tested.lets_ask(DEADLINE_S)
    assert (answers, probe.times) == ([False], 1)
