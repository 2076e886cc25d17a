"""Which items go to Postgres in one list, when, and what follows from the answers: group commit without a timer.

What is ready gathers while a list is under way, and the next list takes it. Alone, an item leaves at once. Of one user
one request is under way at a time, so that requests of a user keep their order and never wait for each other's locks.
An item whose row somebody holds goes into the next list; after a few times it goes alone, and waits for the row.

Here are neither threads nor a clock; `gatherer` has both.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from itertools import islice, takewhile
from math import inf
from typing import Final

from onelane.errors import StoreRefused, StoreUnavailable
from onelane.gathering.marks import Marks
from onelane.gathering.requests import Answers, Call, Request
from onelane.model import JsonObject
from onelane.postgres.faults import QUERY_CANCELED, is_held_up, refusal

ITEMS_MAX: Final = 64
"""Items of a list."""
LIST_OLD_S: Final = 0.02
"""Who waits for a list that is under way for longer does not wait for its end."""
SKIPS_MAX: Final = 3
SKIPPED_MAX_S: Final = 0.05
"""After so many skips, or so long after the first, an item goes alone and waits for the row."""
HELD_REST_S: Final = 2.0
"""After a user's row was waited for in vain, nobody waits for it for so long: few may wait at once."""
SUSPECT_S: Final = 60.0
"""After an item of a user was refused, the user's items go alone for so long."""
DEADLINE_S: Final = 15.0
"""From the request to its answer: more than a call's own deadline."""
REQUESTS_MAX: Final = 20_000


class Grouping:
    """Requests on their way to one SQL function. For one thread at a time."""

    def __init__(self, at_once: int) -> None:
        """At most `at_once` calls are under way (two, if that is one): lists take half, who goes alone the others."""
        self._lists_max = max(1, (at_once + 1) // 2)
        self._alone_max = max(1, at_once // 2)
        self._open: OrderedDict[Request, None] = OrderedDict()
        """All that are not answered, oldest first."""
        self._waiting: deque[Request] = deque()
        self._alone: deque[Request] = deque()
        self._halves: deque[list[Request]] = deque()
        self._under_way: set[Call] = set()
        self._busy: set[str] = set()
        """Whose requests are under way, or have left the waiting for another queue."""
        self._suspects = Marks(SUSPECT_S)
        self._held = Marks(HELD_REST_S)

    def add(self, requests: Collection[Request]) -> bool:
        """Take requests; not if too many wait."""
        if len(self._open) + len(requests) > REQUESTS_MAX:
            return False
        self._open.update(dict.fromkeys(requests))
        self._waiting.extend(requests)
        return True

    def next_call(self, now: float) -> Call | None:
        """Return what is to be sent at once."""
        if self._may_list_leave(now):
            if self._halves:
                return self._sent(Call(self._halves.popleft(), is_half=True), now)
            if requests := self._gathered(now):
                return self._sent(Call(requests), now)
        while self._alone and sum(call.is_alone for call in self._under_way) < self._alone_max:
            request = self._alone.popleft()
            if not request.is_over:
                return self._sent(Call([request], is_alone=True), now)
            self._close(request)
        return None

    def under_way_since(self) -> float | None:
        """Return when the oldest call under way was sent; None: there is none."""
        return min((call.began for call in self._under_way), default=None)

    def look_at(self, now: float) -> float | None:
        """Return when `next_call` or `expired` may have something without having been given anything."""
        times = [request.ends for request in islice(self._open, 1)]
        ripe = self._ripe_at()
        if (self._waiting or self._halves) and ripe > now:
            times.append(ripe)
        return min(times, default=None)

    def answered(self, call: Call, answers: Sequence[JsonObject], now: float) -> Answers:
        """Take the answers to a call; return those that are final. The rest is asked again."""
        self._under_way.remove(call)
        final: Answers = []
        back: list[Request] = []
        left = iter(answers)
        for request in call.requests:
            final += self._split(request, list(islice(left, len(request.piece))), now)
            if not request.items:
                self._close(request)
            elif request.waits:
                self._alone.append(request)
            else:
                self._busy.discard(request.whose)
                back.append(request)
        self._waiting.extendleft(reversed(back))
        return final

    def failed(self, call: Call, error: Exception, now: float) -> Answers:
        """Take the error of a whole call; return whose it is. A list that may have failed for one item is divided.

        Of those who have given up before they went alone nobody finds out whose it is: when they come again they do.
        """
        self._under_way.remove(call)
        requests = call.requests
        if len(requests) > 1 and _may_be_one_items(error):
            if call.is_half:
                self._alone.extend(requests)
                for request in requests:
                    if request.is_over:
                        self._suspects.add(request.whose, now)
            else:
                middle = len(requests) // 2
                self._halves += [requests[:middle], requests[middle:]]
            return []
        for request in requests:
            self._close(request)
            if _may_be_one_items(error):
                self._suspects.add(request.whose, now)
        return [answer for request in requests for answer in request.all_get(error)]

    def expired(self, now: float) -> Answers:
        """Give up those whose time is over. What is under way may still be done, as after a lost reply."""
        late = list(takewhile(lambda request: request.ends <= now, self._open))
        for request in late:
            del self._open[request]
        error = StoreUnavailable("no answer from Postgres in time")
        return [answer for request in late for answer in request.all_get(error)]

    def abandoned(self, error: Exception) -> Answers:
        """Give up all that is not under way."""
        waiting, others = list(self._waiting), [*self._alone, *(request for half in self._halves for request in half)]
        for queue in (self._waiting, self._alone, self._halves):
            queue.clear()
        for request in waiting:  # whose others may be under way
            self._open.pop(request, None)
        for request in others:
            self._close(request)
        requests = waiting + others
        return [answer for request in requests for answer in request.all_get(error)]

    def _may_list_leave(self, now: float) -> bool:
        lists = sum(not call.is_alone for call in self._under_way)
        return lists < self._lists_max and now >= self._ripe_at()

    def _ripe_at(self) -> float:
        """Return from when on the lists that are under way do not keep the next one waiting."""
        return max((call.began + LIST_OLD_S for call in self._under_way if not call.is_alone), default=-inf)

    def _gathered(self, now: float) -> list[Request]:
        """Take the oldest that fit into a list. Who is to go alone goes to another queue; the busy go on waiting."""
        taken: list[Request] = []
        passed: list[Request] = []
        passed_whose: set[str] = set()
        room = ITEMS_MAX
        while self._waiting and room > 0:
            request = self._waiting.popleft()
            if request.is_over:
                self._open.pop(request, None)
            elif request.whose in self._busy or request.whose in passed_whose:
                passed.append(request)
                passed_whose.add(request.whose)
            elif self._suspects.has(request.whose, now):
                self._busy.add(request.whose)
                self._alone.append(request)
            elif len(request.piece) > room:
                self._waiting.appendleft(request)
                break
            else:
                self._busy.add(request.whose)
                taken.append(request)
                room -= len(request.piece)
        self._waiting.extendleft(reversed(passed))
        return taken

    def _sent(self, call: Call, now: float) -> Call:
        call.began = now
        self._under_way.add(call)
        return call

    def _split(self, request: Request, answers: list[JsonObject], now: float) -> Answers:
        """Return the answers that are final; the request keeps what is asked again, and what is still to be asked."""
        if any(_is_refused_for_good(answer) for answer in answers):
            self._suspects.add(request.whose, now)
        held = [nr for nr, answer in enumerate(answers) if _is_held_up(answer)]
        if held and not self._goes_on(request, now):
            held = []
        if not held:
            request.forget_skips()
            if outcome := _outcome_of_what_follows(answers):
                answers += [{"outcome": outcome}] * (len(request.items) - len(answers))
        asked = list(zip(request.items, request.futures, strict=True))
        left = [asked[nr] for nr in held] + asked[len(answers) :]
        request.items, request.futures = [item for item, _ in left], [future for _, future in left]
        answered = enumerate(zip(asked, answers, strict=False))
        return [(future, answer) for nr, ((_, future), answer) in answered if nr not in held]

    def _goes_on(self, request: Request, now: float) -> bool:
        """Count that somebody held the request up; tell whether it is worth asking again."""
        if request.waits:
            self._held.add(request.whose, now)
            return False
        request.skips += 1
        request.skipped_at = min(request.skipped_at, now)
        request.waits = request.skips >= SKIPS_MAX or now - request.skipped_at >= SKIPPED_MAX_S
        return not (request.waits and self._held.has(request.whose, now))

    def _close(self, request: Request) -> None:
        self._open.pop(request, None)
        self._busy.discard(request.whose)


def _is_held_up(answer: JsonObject) -> bool:
    """Whether another transaction kept the item from being done: it may be that of a neighbour in another list."""
    return answer["outcome"] == "skipped" or (answer["outcome"] == "refused" and is_held_up(answer["sqlstate"]))


def _outcome_of_what_follows(answers: Sequence[JsonObject]) -> str | None:
    """Return what becomes of the user's later items if one of these was not done: they are not either."""
    if any(answer["outcome"] == "full" for answer in answers):
        return "full"
    return "skipped" if any(map(_is_held_up, answers)) else None


def _is_refused_for_good(answer: JsonObject) -> bool:
    return answer["outcome"] == "refused" and isinstance(refusal(answer["sqlstate"]), StoreRefused)


def _may_be_one_items(error: Exception) -> bool:
    """Whether one item may be why a whole list failed: it took too long, or the list could not be read at all."""
    return not isinstance(error, StoreUnavailable) or error.sqlstate == QUERY_CANCELED
