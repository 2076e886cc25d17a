from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from onelane import StoreUnavailable
from onelane.testing import Bot

import bot
import front


def test_the_bot_answers() -> None:
    assert Bot(bot.handle).user("alice").says("hello") == ["You will read here when an order of yours is on its way."]


def test_an_order_is_said_under_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str, dict[str, Any]]] = []

    def say(user: str, text: str, **how: Any) -> SimpleNamespace:
        said.append((user, text, how))
        return SimpleNamespace(duplicate=False)

    monkeypatch.setattr(front, "say", say)
    answer = TestClient(front.app).post("/say/support", json={"order": "7", "customer": "alice"})
    assert answer.json() == {"was_said_before": False}
    assert said == [("alice", "Order 7 is on its way.", {"channel": "support", "key": "shipped-7"})]


def test_while_the_database_is_away_the_caller_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(front, "say", say)
    answer = TestClient(front.app).post("/say/support", json={"order": "7", "customer": "alice"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
