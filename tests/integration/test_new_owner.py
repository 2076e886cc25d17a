"""A number has another owner: what a turn is offered then, until an operator confirms that it is the same person."""

from typing import Any
from uuid import uuid4

import pytest

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.config import Settings
from onelane.deliveries import Delivery, IdentityChange
from tests.conftest import deliver
from tests.working_off import work_off

NOTHING: tuple[Any, ...] = ([], None, {}, {})


class Bot:
    """Remembers all that a bot can remember, and notes what it was offered."""

    def __init__(self) -> None:
        self.offered: list[tuple[Any, ...]] = []

    def __call__(self, turn: Turn) -> str:
        history = [line.text for line in turn.history() if line.role in {"user", "bot"}]
        self.offered.append((history, turn.tool_output("likes"), dict(turn.user.state), dict(turn.session.state)))
        turn.save_tool_output("likes", turn.message.text)
        turn.user.state["name"] = turn.session.state["name"] = turn.message.text
        return f"hello {turn.message.text}"


@pytest.fixture
def bot() -> Bot:
    return Bot()


def writes(services: Services, text: str) -> None:
    deliver(services, [Delivery(senders=("+15550100",), external_id=uuid4().hex, text=text)])


def changes_owner(services: Services) -> Any:
    change = IdentityChange(senders=("+15550100",), external_id=uuid4().hex, has_new_owner=True)
    return deliver(services, [change])[0].user_id


def test_the_next_turn_is_offered_nothing_of_the_earlier_owner(
    services: Services, settings: Settings, bot: Bot
) -> None:
    writes(services, "alice")
    work_off(services, settings, bot)
    changes_owner(services)
    writes(services, "bob")
    work_off(services, settings, bot)
    writes(services, "bob again")
    work_off(services, settings, bot)
    known = ["bob", "hello bob"]
    assert bot.offered == [NOTHING, NOTHING, (known, "bob", {"name": "bob"}, {"name": "bob"})]


def test_what_waited_before_is_the_earlier_owners_and_what_comes_later_is_not(
    services: Services, settings: Settings, bot: Bot
) -> None:
    writes(services, "alice")
    writes(services, "alice again")
    changes_owner(services)
    writes(services, "bob")
    work_off(services, settings, bot)
    assert bot.offered[1][0] == ["alice", "hello alice"]
    assert bot.offered[2] == NOTHING


def test_a_turn_that_runs_as_the_owner_changes_leaves_the_next_one_nothing(
    services: Services, settings: Settings, bot: Bot
) -> None:
    def changing(turn: Turn) -> str:
        if turn.message.text == "alice" and not bot.offered:
            changes_owner(services)
            writes(services, "bob")
        return bot(turn)

    writes(services, "alice")
    work_off(services, settings, changing)
    assert bot.offered[-1] == NOTHING


def test_once_confirmed_a_turn_has_the_persons_state_again(services: Services, settings: Settings, bot: Bot) -> None:
    writes(services, "alice")
    work_off(services, settings, bot)
    user_id = changes_owner(services)
    services.database.rows("SELECT confirm_user(%s)", (user_id,))
    writes(services, "alice again")
    work_off(services, settings, bot)
    assert bot.offered[-1] == ([], None, {"name": "alice"}, {})
