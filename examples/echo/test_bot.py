from bot import handle
from onelane.testing import Bot


def test_it_returns_what_it_receives() -> None:
    assert Bot(handle).user("alice").says("hello") == ["hello"]
