"""The model's service: one request, one answer, read from its stream. What is not an answer is raised."""

import asyncio
import json
from collections.abc import AsyncIterable, Sequence
from typing import Annotated, Final
from uuid import uuid4

import httpx2
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from onelane.errors import Later
from onelane.model import JsonObject

RETRY_S: Final = 10.0
RETRY_MAX_S: Final = 300.0
NOT_NOW: Final = frozenset({408, 409, 429, *range(500, 600)})


class ModelSettings(BaseSettings):
    """Where the model is, and what it may cost. Read from LLM_BASE_URL and so on."""

    model_config = SettingsConfigDict(env_prefix="LLM_", env_ignore_empty=True, frozen=True)

    base_url: str = "https://api.openai.com/v1"
    api_key: SecretStr = SecretStr("")
    model: str = "gpt-4.1-mini"
    system_prompt: str = "You are a helpful assistant in a chat. Answer briefly."
    timeout_s: Annotated[float, Field(gt=0)] = 60
    """Of one call: well below TURN_TIMEOUT_S."""
    history_tokens: Annotated[int, Field(ge=100)] = 8_000
    """How much of the conversation is sent, roughly."""
    steps_max: Annotated[int, Field(ge=1, le=50)] = 8
    """Calls of the model in one turn."""


class ModelClient:
    """Asks one service."""

    def __init__(self, settings: ModelSettings) -> None:
        """Connect to nothing yet."""
        key = settings.api_key.get_secret_value()
        self._settings = settings
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=settings.timeout_s, trust_env=False
        )

    async def ask(self, said: Sequence[JsonObject], tools: Sequence[JsonObject], key: str) -> JsonObject:
        """Return the assistant's message; raise Later where the service cannot answer now."""
        body = {"model": self._settings.model, "messages": said, "stream": True, **({"tools": tools} if tools else {})}
        url = f"{self._settings.base_url.rstrip('/')}/chat/completions"
        async with (
            asyncio.timeout(self._settings.timeout_s),
            self._client.stream("POST", url, json=body, headers={"Idempotency-Key": key}) as response,
        ):
            _check(response)
            return await gathered(httpx2.EventSource(response))


def _check(response: httpx2.Response) -> None:
    """Raise Later for what may be well soon, and a clear error for what will not."""
    status = response.status_code
    if status in NOT_NOW:
        asked = response.headers.get("retry-after", "")
        raise Later(min(float(asked), RETRY_MAX_S) if asked.isdecimal() else RETRY_S, f"the model answers {status}")
    if status in {401, 403}:
        raise RuntimeError(f"the model refuses LLM_API_KEY: {status}")
    if status != 200:  # noqa: PLR2004 - HTTP's number for: all is well
        raise RuntimeError(f"the model refuses what it is asked: {status}; are LLM_BASE_URL and LLM_MODEL right?")


async def gathered(events: AsyncIterable[httpx2.ServerSentEvent]) -> JsonObject:
    """Put a stream together; half of one is no answer."""
    text = ""
    calls: dict[int, JsonObject] = {}
    async for event in events:
        if event.data == "[DONE]":
            kept = [{**calls[index], "id": calls[index]["id"] or f"call_{uuid4().hex}"} for index in sorted(calls)]
            return {"role": "assistant", "content": text or None, **({"tool_calls": kept} if kept else {})}
        for choice in object_in(event.data).get("choices", [])[:1]:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            for part in delta.get("tool_calls") or []:
                call = calls.setdefault(part["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
                call["id"] = part.get("id") or call.get("id", "")
                for name in ("name", "arguments"):
                    call["function"][name] += part.get("function", {}).get(name) or ""
    raise Later(RETRY_S, "the model's answer ended in its middle")


def object_in(text: str) -> JsonObject:
    """Read a JSON object; anything else is an empty one."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
