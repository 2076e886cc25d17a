"""What a worker does on an out lane, beside `worker/onelane/outbox/shipment.py`: mark, send, settle; or find out."""

from collections.abc import Iterator

from tests.explore import records
from tests.explore.records import Begun, Request, Settled
from tests.explore.state import IDLE, Slot, User
from tests.explore.steps import At, Step, finishes, looks, parks


def begin_send(at: At) -> Iterator[Step]:
    user, begun = records.begin_send(at.user, at.slot.lease)
    call = ("begin_send", at.slot.user, at.slot.lease)
    return at.calls("begins a send", call, user, begun, _with_reply(at.slot, begun))


def _with_reply(slot: Slot, begun: Begun) -> Slot:
    if begun.outcome == "idle":
        return finishes(slot) if slot.done else looks(slot)
    if begun.outcome == "fenced":
        return parks(slot)
    return slot._replace(stage="send" if begun.outcome == "send" else "find out", work=begun.request)


def send(at: At) -> Iterator[Step]:
    """Begin the request, soon after its mark or not at all. `world` says what becomes of it."""
    if _is_over(at.user, at.slot.work):
        yield at.goes("is too late to send", _will_settle(at.slot, "not_now"))
    else:
        yield at.goes("sends", at.slot._replace(stage="sending"))


def find_out(at: At) -> Iterator[Step]:
    """Decide about a reply of which nobody knows whether it arrived."""
    request, rule = at.slot.work, at.setting.on_unknown
    if rule == "ask" and request.seq in at.user.received:
        yield at.goes("finds the reply at the provider", _will_settle(at.slot, "accepted"))
    elif not _is_over(at.user, request):
        yield at.goes("waits for the request to be over", parks(at.slot))
    else:
        fate = {"ask": "absent", "resend": "resend", "leave": "give_up"}[rule]
        yield at.goes(f"decides: {fate}", _will_settle(at.slot, fate))


def _is_over(user: User, request: Request) -> bool:
    reply = user.reply(request.seq)
    return reply.is_over or reply.requests != request.attempt


def _will_settle(slot: Slot, fate: str) -> Slot:
    return slot._replace(stage="settle", work=slot.work._replace(fate=fate))


def taken(at: At) -> Iterator[Step]:
    """Hear that the provider has the reply, and store it; or hear nothing until the deadline."""
    if at.state.left.losses:
        lost = at.goes("hears no answer from the provider", _will_settle(at.slot, "unknown"))
        yield lost._replace(after=lost.after.spend("losses"))
    yield from settle_send(at._replace(slot=_will_settle(at.slot, "accepted")))


def settle_send(at: At) -> Iterator[Step]:
    slot, request = at.slot._replace(left=at.slot.left - 1), at.slot.work
    user, settled = records.settle_send(at.user, slot.lease, request, goes_on=slot.left > 0)
    call = ("settle_send", slot.user, slot.lease, request, slot.left > 0)
    after = _after_send(slot, request, settled)
    return at.calls(f"settles its request: {request.fate}", call, user, settled, after)


def _after_send(slot: Slot, request: Request, settled: Settled) -> Slot:
    is_terminal = settled.state in {"sent", "failed"} or (settled.state == "unknown" and request.fate == "give_up")
    if is_terminal:
        slot = slot._replace(done=slot.done | {request.seq})
    if settled.next is not None:
        return _with_reply(slot, settled.next)
    if settled.outcome == "fenced":
        return IDLE
    return finishes(slot, has_more=settled.has_more) if is_terminal else parks(slot)
