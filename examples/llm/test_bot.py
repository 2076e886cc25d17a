from collections.abc import Iterator

import pytest
from onelane.testing import Bot
from onelane.testing.fake_model import fake_model


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a model that repeats messages, or calls the tool that one names."""
    journal = tmp_path_factory.mktemp("model") / "journal"
    with fake_model(journal) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_BASE_URL", running.base_url)
        yield


def test_the_model_answers() -> None:
    assert Bot("bot:handle").user("alice").says("hello") == ["You said: hello"]


def test_the_model_calls_the_function_and_its_output_is_kept() -> None:
    alice = Bot("bot:handle").user("alice")
    [answer] = alice.says('opening_hours {"day": "Sunday"}')
    assert "closed" in answer
    assert [call.name for call in alice.tool_calls] == ["opening_hours"]
