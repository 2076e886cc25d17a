from bot import handle
from onelane.testing import Bot


def test_a_number_means_what_was_shown() -> None:
    alice = Bot(handle).user("alice")
    assert alice.says("hello") == ["Which site?"]
    assert alice.presses("2") == ["Créteil opens at 7:00."]


def test_a_new_session_knows_no_list() -> None:
    bot = Bot(handle)
    alice = bot.user("alice")
    alice.says("hello")
    bot.clock.passes(hours=8)
    assert alice.says("2") == ["Which site?"]
