"""The functions in Postgres, each as one atomic step on one user: the user afterwards, and the answer.

Beside `sql/functions/`, where they are named the same: of what they answer, all that a worker branches on. A turn is
what `begin_turn` handed out; a request is a reply and the number of the attempt.
"""

from typing import NamedTuple

from tests.explore.state import NOBODY, Reply, User, Waiting, fence_of


class Turn(NamedTuple):
    """A batch in the hands of a worker."""

    seqs: tuple[int, ...]
    version: int
    attempts: int
    fails: bool = False
    """Whether its handler raised."""


class Request(NamedTuple):
    """A reply under way, and what is to become of it."""

    seq: int
    attempt: int
    fate: str = ""


class Begun(NamedTuple):
    """The answer of `begin_turn`, with replies that are to be sent where there is no turn; or of `begin_send`."""

    outcome: str
    turn: Turn | None = None
    outbox: tuple[int, ...] = ()
    request: Request | None = None


class Settled(NamedTuple):
    """The answer of `settle_turn` or `settle_send`."""

    outcome: str
    has_more: bool
    outbox: tuple[int, ...] = ()
    state: str = ""
    next: Begun | None = None


DECISIONS = {"absent", "resend", "give_up"}
"""Of the lane's holder alone: the fence guards them, and never what is known."""


# turns


def accept(user: User) -> tuple[User, int]:
    """Number a new message; it waits."""
    seq = user.said + 1
    return user._replace(said=seq, inbox=(*user.inbox, Waiting(seq))), seq


def accept_again(user: User, seq: int) -> tuple[User, bool]:
    """Answer a delivery that comes twice: whether its message still waits."""
    return user, seq in user.waiting("in")


def begin_turn(user: User, fence: int, batch_max: int, *, taken_over: bool) -> tuple[User, Begun]:
    """Hand out the lowest batch, whose members are frozen now. Who takes over writes its fence at once."""
    if user.fence > fence:
        return user, Begun("fenced", outbox=user.waiting("out"))
    if user.is_paused:
        return user, Begun("paused", outbox=user.waiting("out"))
    if not user.inbox:
        return user, Begun("idle", outbox=user.waiting("out"))
    lowest = user.inbox[0]
    if taken_over:
        user = user._replace(fence=fence)
    if batch_max > 1 and not lowest.last:
        lowest = lowest._replace(last=user.inbox[:batch_max][-1].seq)
        user = user._replace(inbox=(lowest, *user.inbox[1:]))
    seqs = tuple(row.seq for row in user.inbox if row.seq <= (lowest.last or lowest.seq))
    user = user._replace(promised=user.promised or seqs[-1])
    return user, Begun("turn", Turn(seqs, len(user.done), lowest.attempts))


def settle_turn(
    user: User, fence: int, turn: Turn, batch_max: int, *, goes_on: bool, answers: bool
) -> tuple[User, Settled]:
    """Commit a turn or count its failure, if it may; then begin the next, where the lane goes on."""
    user, outcome = _settle(user, fence, turn, answers=answers)
    has_more, begun = bool(user.inbox), None
    if has_more and outcome != "fenced" and goes_on:
        user, begun = begin_turn(user, fence, batch_max, taken_over=False)
    return user, Settled(outcome, has_more, user.waiting("out"), next=begun)


def _settle(user: User, fence: int, turn: Turn, *, answers: bool) -> tuple[User, str]:
    lowest = next((row for row in user.inbox if row.seq == turn.seqs[0]), None)
    if lowest is None:
        return user, "already"
    if user.fence > fence:
        return user, "fenced"
    if len(user.done) != turn.version:
        return user, "stale"
    user = user._replace(fence=fence, writer=fence)
    if turn.fails:
        again = lowest._replace(attempts=lowest.attempts + (lowest.attempts == turn.attempts))
        return user._replace(inbox=tuple(again if row is lowest else row for row in user.inbox)), "retry"
    replies = (*user.replies, Reply(turn.seqs[-1])) if answers else user.replies
    inbox = tuple(row for row in user.inbox if row.seq not in turn.seqs)
    return user._replace(inbox=inbox, done=user.done + turn.seqs, replies=replies, promised=0), "committed"


def states(user: User, kind: str, jobs: frozenset[int]) -> tuple[User, tuple[frozenset[int], bool]]:
    """Answer which of a lane's jobs are done, and whether one waits."""
    waiting = jobs.intersection(user.waiting(kind))
    return user, (jobs - waiting, bool(waiting))


def pause_user(user: User) -> tuple[User, bool]:
    """Keep the user's messages waiting."""
    return user._replace(is_paused=True), True


def resume_user(user: User) -> tuple[User, bool]:
    """Let them run again."""
    return user._replace(is_paused=False), True


# replies


def begin_send(user: User, lease: int) -> tuple[User, Begun]:
    """Hand out the lowest reply, to be sent under a mark that is made now, or to be found out about."""
    fence = fence_of(lease)
    if user.out_fence > fence:
        return user, Begun("fenced")
    lowest = next((reply for reply in user.replies if reply.waits), None)
    if lowest is None:
        return user, Begun("idle")
    is_ours = lowest.state == "sending" and lowest.lease == lease
    if lowest.state == "pending" or is_ours:
        requests = lowest.requests + (lowest.state == "pending")
        lowest = lowest._replace(state="sending", lease=lease, requests=requests, is_over=False)
    else:
        lowest = lowest._replace(state="unknown", lease=NOBODY)
    request = Request(lowest.seq, lowest.requests)
    outcome = "send" if lowest.state == "sending" else "unknown"
    return user._replace(out_fence=fence).put_reply(lowest), Begun(outcome, request=request)


def settle_send(user: User, lease: int, request: Request, *, goes_on: bool) -> tuple[User, Settled]:
    """Store what came of a request, if that is news and its teller's to say; then mark the next."""
    reply = user.reply(request.seq)
    user, outcome = _settle_request(user, reply, fence_of(lease), request)
    state, begun = user.reply(request.seq).state, None
    if outcome != "fenced" and goes_on:
        user, begun = begin_send(user, lease)
    state = "unknown" if state == "given up" else state
    return user, Settled(outcome, bool(user.waiting("out")), state=state, next=begun)


def _settle_request(user: User, reply: Reply, fence: int, request: Request) -> tuple[User, str]:
    fate = request.fate
    if fate == "accepted":
        if reply.state == "sent":
            return user, "already"
        return user.put_reply(_ended(reply, "sent")), "settled"
    if reply.state not in {"sending", "unknown"} or reply.requests != request.attempt:
        return user, "already"
    if fate in DECISIONS and user.out_fence > fence:
        return user, "fenced"
    if fate == "absent" and reply.resent and reply.is_over:
        reply = _ended(reply, "failed")
    elif fate == "give_up":
        reply = _ended(reply, "given up")
    elif fate == "unknown":
        reply = reply._replace(state="unknown", lease=NOBODY, is_over=True)
    elif fate == "not_now":
        reply = reply._replace(state="pending", lease=NOBODY, is_over=True)
    elif reply.is_over:
        reply = reply._replace(state="pending", lease=NOBODY, resent=True)
    return user.put_reply(reply), "settled"


def _ended(reply: Reply, state: str) -> Reply:
    """Let a reply leave the outbox, with the row that knew of its requests."""
    return Reply(reply.seq, state)
