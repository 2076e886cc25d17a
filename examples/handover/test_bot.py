from bot import handle
from onelane.testing import Bot


def test_a_human_takes_over_and_gives_the_conversation_back() -> None:
    alice = Bot(handle).user("alice")
    assert alice.says("I want a human") == ["A colleague will answer you here."]
    assert alice.says("are you there?") == [], "the human answers now"
    alice.hand_back()
    assert alice.says("thanks") == ["I am back. What else?"]
    assert len(alice.sessions) == 1
