"""slack_sdk's WebClient with its defaults: a bot that posts each reply, and counts what is said to have failed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from itertools import chain

from slack_sdk import WebClient
from slack_sdk.errors import SlackClientError

from bench.storming import TOKEN

NAME = "slack_sdk, its defaults"
THREADS = 16


def send(base_url: str, texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Post what each user is to read, one after the other; many users at once. Return what raised."""
    client = WebClient(TOKEN, base_url=base_url)
    with ThreadPoolExecutor(THREADS) as threads:
        return list(chain.from_iterable(threads.map(partial(_post_all, client), texts.values())))


def _post_all(client: WebClient, texts: Sequence[str]) -> list[str]:
    failed = []
    channel = f"D{texts[0].partition('-')[0]}"
    for text in texts:
        try:
            client.chat_postMessage(channel=channel, text=text)
        except (SlackClientError, OSError, HTTPException, ValueError):
            failed.append(text)
    return failed
