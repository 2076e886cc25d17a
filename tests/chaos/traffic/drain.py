"""The end of a run's traffic: everything sent is delivered, everybody is given back, nothing waits, all is read."""

import json
import time
from collections.abc import Callable, Sequence
from random import Random
from urllib.parse import urlencode

from tests.chaos.history import Event, Recorder
from tests.chaos.traffic.correspondence import Correspondence
from tests.chaos.traffic.operations import Operations
from tests.chaos.traffic.plan import Post
from tests.chaos.traffic.postman import Postman

DRAIN_MAX_S = 60.0
DRAINED_PER_SECOND = 20
"""How many waiting messages are worth another second."""
POLL_S = 0.1
READ_PAUSE_S = 0.2
OLD_ONES = 60
"""How many messages are delivered once more when all is done."""


class Drain:
    """Ends all correspondences."""

    def __init__(
        self,
        correspondences: Sequence[Correspondence],
        operations: Operations,
        postman: Postman,
        recorder: Recorder,
        problems: list[str],
    ) -> None:
        self._correspondences = correspondences
        self._operations = operations
        self._postman = postman
        self._recorder = recorder
        self._problems = problems

    def run(self, sent: Sequence[tuple[Correspondence, Post]]) -> None:
        """Do all of it; what cannot be done in time is a problem."""
        dropped = {post.delivery for correspondence in self._correspondences for post in correspondence.drop_rest()}
        delivered = [(correspondence, post) for correspondence, post in sent if post.delivery not in dropped]
        self._deliver_rest("are not acknowledged")
        self._command("paused", "resume")
        self._hand_back()
        self._await_nothing_waiting()
        for message in self._operations.redrivable():
            self._operations.redrive(message, self._operations.last_seq(message.user_id))
        self._await_nothing_waiting()
        self._hand_back()
        for correspondence, post in Random(len(sent)).sample(delivered, min(OLD_ONES, len(delivered))):
            correspondence.add(post._replace(delivery=f"{post.delivery} at last"))
        self._deliver_rest("are not acknowledged again")
        self._await_nothing_waiting()
        self._read_all()

    def _deliver_rest(self, complaint: str) -> None:
        self._await_none(self._busy_users, f"users' posts {complaint}")

    def _busy_users(self) -> int:
        return sum(not one.is_idle for one in self._correspondences)

    def _await_nothing_waiting(self) -> None:
        self._await_none(self._operations.waiting, "messages and replies still wait")

    def _await_none(self, count: Callable[[], int], complaint: str) -> None:
        ends = time.monotonic() + DRAIN_MAX_S + self._operations.waiting() / DRAINED_PER_SECOND
        while left := count():
            if time.monotonic() > ends:
                self._problems.append(f"{left} {complaint}")
                return
            time.sleep(POLL_S)

    def _hand_back(self) -> None:
        for role in ("escalated", "taken over"):
            self._command(role, "hand_back")

    def _command(self, role: str, name: str) -> None:
        for correspondence in self._correspondences:
            user_id = self._operations.user_of(correspondence.user) if correspondence.user.role.name == role else None
            if user_id is not None:
                self._operations.do(name, user_id, correspondence.last_seq)

    def _read_all(self) -> None:
        for correspondence in self._correspondences:
            if not correspondence.has_written:
                continue
            if (user_id := self._operations.user_of(correspondence.user)) is not None:
                self._recorder.note("read", user_id=user_id, replies=self._replies(correspondence))

    def _replies(self, correspondence: Correspondence) -> list[Event]:
        replies, after, done = list[Event](), -1, 0
        while done != after:
            after = done
            page = self._page(correspondence, after)
            replies += page["replies"]
            done = page["done_seq"]
        return [
            {"turn_seq": one["seq"], **{name: one[name] for name in ("ordinal", "text", "state")}} for one in replies
        ]

    def _page(self, correspondence: Correspondence, after: int) -> Event:
        user = correspondence.user
        path = f"/webhooks/{user.channel}/replies?{urlencode({'user': user.sender, 'after': after})}"
        ends = time.monotonic() + DRAIN_MAX_S
        for web in range(10_000):
            answer = self._postman.get(web, path)
            if answer.is_accepted:
                page: Event = json.loads(answer.body)
                return page
            if time.monotonic() > ends:
                break
            time.sleep(READ_PAUSE_S)
        self._problems.append(f"the replies to a user of {user.channel} cannot be read: {answer.status} {answer.why}")
        return {"replies": [], "done_seq": after}
