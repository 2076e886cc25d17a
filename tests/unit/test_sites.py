from datetime import UTC, datetime
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest

from onelane.bot import Session, Turn, User
from onelane.bot.memory import Memory
from onelane.handlers.sites import GREETING, SITES, handle
from onelane.history import Line
from onelane.model import JsonObject, Message
from onelane.turns.loading import load

NOW = datetime(2026, 1, 17, 20, 39, tzinfo=UTC)


class Saved(Memory):
    """What earlier turns of each session have saved."""

    def __init__(self) -> None:
        self.saved: list[tuple[UUID, JsonObject]] = []

    def history(self, *_: object) -> list[Line]:
        raise AssertionError("this bot reads no history")

    def tool_output(self, session_id: UUID, name: str) -> Any:
        found = [output["output"] for session, output in self.saved if (session, output["name"]) == (session_id, name)]
        return found[-1] if found else None


class Talk:
    """A user's talk with the bot; another session begins when `session` is replaced."""

    def __init__(self) -> None:
        self.session = uuid4()
        self._memory = Saved()

    def say(self, text: str = "", button: str | None = None) -> str:
        message = Message(id=uuid4(), seq=1, text=text, button=button, attachments=(), accepted_at=NOW, attempts=0)
        user, session = User(uuid4(), "support", "alice", {}), Session(self.session, NOW, {})
        turn = Turn([message], user, session, self._memory, Event())
        answer = handle(turn)
        self._memory.saved += [(self.session, output) for output in turn.effects(answer).get("tool_calls", [])]
        return answer

    @property
    def outputs(self) -> list[JsonObject]:
        return [output for _, output in self._memory.saved]


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_the_sites_are_listed_by_number_champigny_first(talk: Talk) -> None:
    lines = talk.say(button="view_sites_fr").splitlines()
    assert lines[1] == "1. Champigny"
    assert [line.partition(". ")[0] for line in lines[1:]] == [str(number) for number in range(1, len(SITES) + 1)]


def test_the_list_is_saved_as_it_was_shown(talk: Talk) -> None:
    lines = talk.say(button="view_sites_fr").splitlines()[1:]
    [output] = talk.outputs
    assert output["name"] == "list_sites"
    assert [f"{number}. {site['name']}" for number, site in enumerate(output["output"], 1)] == lines
    assert all(site["id"] and site["address"] for site in output["output"])


@pytest.mark.parametrize("number", range(1, len(SITES) + 1))
def test_an_option_is_answered_with_its_site(talk: Talk, number: int) -> None:
    talk.say(button="view_sites_fr")
    answer = talk.say(button=f"option_{number}_fr")
    assert SITES[number - 1]["name"] in answer
    assert SITES[number - 1]["address"] in answer


def test_typed_words_do_what_the_buttons_do(talk: Talk) -> None:
    talk.say(" view_sites_fr\n")
    assert "Champigny" in talk.say("option_1_fr")


def test_a_button_counts_more_than_its_label(talk: Talk) -> None:
    talk.say("option_2_fr", button="view_sites_fr")
    assert "Champigny" in talk.say("Créteil", button="option_1_fr")


def test_an_option_without_a_list_is_greeted(talk: Talk) -> None:
    assert talk.say(button="option_1_fr") == GREETING


def test_the_list_of_another_session_is_out_of_reach(talk: Talk) -> None:
    talk.say(button="view_sites_fr")
    talk.session = uuid4()
    assert talk.say(button="option_1_fr") == GREETING


def test_a_number_beyond_the_list_is_said_to_be(talk: Talk) -> None:
    talk.say(button="view_sites_fr")
    assert talk.say(button="option_9_fr") == "Il n'y a pas de chantier 9 : choisissez un numéro de 1 à 3."


@pytest.mark.parametrize(
    "words",
    [
        "bonjour",
        "",
        "option_0_fr",
        "option_-1_fr",
        "option_1_fr2",
        "option_1_en",
        "option_\N{ARABIC-INDIC DIGIT ONE}_fr",
        f"option_{'9' * 9000}_fr",
    ],
)
def test_anything_else_is_greeted(talk: Talk, words: str) -> None:
    talk.say(button="view_sites_fr")
    assert talk.say(words) == GREETING


def test_it_is_named_as_any_handler_is() -> None:
    assert load("onelane.handlers.sites:handle").handle.function is handle
