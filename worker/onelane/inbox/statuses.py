"""What providers say became of replies: it moves them upwards, and lets lanes go on that waited for it."""

import time
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from onelane.channels.provider import Provider
from onelane.channels.sender import Sender
from onelane.deliveries import Status
from onelane.errors import LanesUnavailable, StoreRefused, StoreUnavailable
from onelane.failures import Failures
from onelane.inbox.refusals import gravest
from onelane.lanes.lanes import Lanes
from onelane.model import JsonObject
from onelane.postgres.db import Database
from onelane.postgres.faults import is_held_up
from onelane.telemetry.log import event
from onelane.telemetry.numbers import DUPLICATED, REPLIES, STATUSES, STATUSES_KEPT

NOTE_S: Final = 2.0
LIST_MAX: Final = 250
"""In one statement: it holds the lanes of so many users until it is done."""
SKIPPED: Final[JsonObject] = {"outcome": "skipped"}


class Statuses:
    """The statuses of all channels."""

    def __init__(
        self, database: Database, providers: Mapping[str, Provider], out_lanes: Lanes, failures: Failures
    ) -> None:
        """Take the providers by channel: their senders know what a code means."""
        self._database = database
        self._senders = {channel: provider.sender for channel, provider in providers.items()}
        self._out_lanes = out_lanes
        self._failures = failures

    def note(self, channel: str, statuses: Sequence[Status], within_s: float = NOTE_S) -> None:
        """Note statuses, in any order and however often; raise StoreUnavailable, or StoreRefused for one of them.

        Each is an island: what is raised, is raised when all others are noted, and their lanes go on.
        After `within_s` nothing more begins: lanes that may go on wait, and a worker lets the bots know of failures.
        """
        ends = time.monotonic() + within_s
        items = [_item(channel, status, self._senders.get(channel)) for status in statuses]
        answers, problems = self._answers(items, ends)
        for status in statuses:
            STATUSES.count(status.state)
        for answer in answers:
            if answer["outcome"] == "kept":
                STATUSES_KEPT.count()
            if answer.get("goes_on"):
                REPLIES.count(answer["state"])
            if answer.get("duplicated"):
                DUPLICATED.count()
                event("reply_duplicated", channel=channel, user_id=answer["user_id"])
        users = {UUID(answer["user_id"]) for answer in answers if answer.get("goes_on")}
        if users and time.monotonic() < ends:
            self._let_go_on(users)
        if any(answer.get("failed") for answer in answers) and (left_s := ends - time.monotonic()) > 0:
            self._failures.tell(left_s)
        if problem := gravest(problems):
            raise problem

    def _answers(self, items: Sequence[JsonObject], ends: float) -> tuple[list[JsonObject], list[Exception]]:
        """Ask in few lists; return the answers, and why others have none.

        What is refused with others, or held up by somebody's lock, goes alone, and waits.
        """
        answers: list[JsonObject] = []
        problems: list[Exception] = []
        calls = [items[start : start + LIST_MAX] for start in range(0, len(items), LIST_MAX)]
        while calls:
            if (left_s := ends - time.monotonic()) <= 0:
                problems.append(StoreUnavailable("statuses wait for others' locks"))
                break
            call, *calls = calls
            try:
                found = self._database.ask("note_statuses", call, waits=len(call) == 1, within_s=left_s)
            except StoreRefused as error:
                if len(call) == 1:
                    problems.append(error)
                    continue
                found = [SKIPPED] * len(call)
            except StoreUnavailable as error:
                problems.append(error)
                if not is_held_up(error.sqlstate or ""):
                    break
                continue
            answers += [answer for answer in found if answer != SKIPPED]
            calls += [[item] for item, answer in zip(call, found, strict=True) if answer == SKIPPED]
        return answers, problems

    def _let_go_on(self, users: set[UUID]) -> None:
        """Make lanes due that need not wait any more; what Redis does not hear, they wait out."""
        try:
            self._out_lanes.make_all_due(sorted(users))
        except LanesUnavailable as error:
            event("lanes_wait_on", lanes=len(users), error=str(error))


def _item(channel: str, status: Status, sender: Sender | None) -> JsonObject:
    """Make the item of note_statuses: with our word for the provider's code."""
    item = {**status.model_dump(mode="json", exclude_none=True), "channel": channel}
    word = sender.word_of(status.failure_code) if sender and status.failure_code else None
    return {**item, "failure": word} if word else item
