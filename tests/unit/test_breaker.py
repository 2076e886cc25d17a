"""Many threads that ask a server which is away: one of them probes, the others are refused at once."""

import threading
from collections.abc import Callable

import pytest

from onelane.errors import StoreUnavailable
from onelane.postgres import breaker
from onelane.postgres.breaker import Breaker


class Probe:
    """Answers, or fails, and counts."""

    def __init__(self) -> None:
        self.times = 0
        self.fails = False
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> None:
        self.times += 1
        self.meanwhile()
        if self.fails:
            raise StoreUnavailable("away")


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass between two probes."""
    monkeypatch.setattr(breaker, "PROBE_PAUSE_S", 0.0)


def test_a_server_that_is_there_is_asked_without_a_probe(probe: Probe) -> None:
    assert Breaker(probe).lets_ask()
    assert probe.times == 0


def test_right_after_a_failure_everybody_is_refused_without_a_probe(probe: Probe) -> None:
    tested = Breaker(probe)
    tested.open("away")
    assert not tested.lets_ask()
    assert probe.times == 0


@pytest.mark.usefixtures("at_once")
def test_it_is_asked_again_as_soon_as_a_probe_succeeds(probe: Probe) -> None:
    tested, probe.fails = Breaker(probe), True
    tested.open("away")
    assert not tested.lets_ask()
    probe.fails = False
    assert tested.lets_ask()
    assert not tested.is_open


@pytest.mark.usefixtures("at_once")
def test_one_who_got_no_answer_makes_the_next_probe_and_a_server_that_answers_is_not_away(probe: Probe) -> None:
    tested = Breaker(probe)
    tested.suspect()
    assert tested.lets_ask()
    assert (probe.times, tested.lets_ask(), probe.times) == (1, True, 1)
    probe.fails = True
    tested.suspect()
    assert not tested.lets_ask()


@pytest.mark.usefixtures("at_once")
def test_while_one_probes_the_others_are_refused_at_once(probe: Probe) -> None:
    tested, answers = Breaker(probe), []
    tested.open("away")

    def ask_beside() -> None:
        other = threading.Thread(target=lambda: answers.append(tested.lets_ask()))
        other.start()
        other.join()

    probe.meanwhile = ask_beside
    assert tested.lets_ask()
    assert (answers, probe.times) == ([False], 1)
