"""What is logged and counted of replies: never a text, an address or a number of anybody's."""

import time
from contextlib import AbstractContextManager

from onelane.channels.verdicts import Outcome, Verdict
from onelane.model import Lease
from onelane.outbox.reply import Deed, Fate, Settled, SettleOutcome, Waiting
from onelane.telemetry import tracing
from onelane.telemetry.log import event
from onelane.telemetry.numbers import DUPLICATED, LOOK_UPS, REPLIES, REQUEST_SECONDS, REQUESTS, VISIBLE_SECONDS
from onelane.telemetry.tracing import Span


def request(what: str, provider: str, reply: Waiting, lease: Lease) -> AbstractContextManager[Span]:
    """Trace a request for a reply, or a look-up of one."""
    return tracing.requesting(
        what,
        provider,
        reply.traceparent,
        lambda: {"user_id": str(lease.user_id), **reply.names(lease.fence)},
    )


def answered(span: Span, verdict: Verdict, seconds: float) -> None:
    """Count a request by what its answer means."""
    span.note({"onelane.outcome": verdict.outcome})
    if verdict.outcome is not Outcome.ACCEPTED:
        span.fail(verdict.word or verdict.outcome)
    REQUESTS.count(verdict.outcome)
    REQUEST_SECONDS.observe(seconds)


def looked_up(span: Span, verdict: Verdict) -> None:
    """Count a look-up by what is known after it."""
    span.note({"onelane.outcome": verdict.outcome})
    LOOK_UPS.count(verdict.outcome)


def settled(reply: Waiting, lease: Lease, fate: Fate, done: Settled) -> None:
    """Note what became of a reply."""
    if done.is_duplicate:
        DUPLICATED.count()
        event("reply_duplicated", channel=reply.channel, user_id=str(lease.user_id))
    if done.outcome is not SettleOutcome.SETTLED or done.state is None:
        return
    names = {"user_id": str(lease.user_id), **reply.names(lease.fence)}
    if done.is_terminal(fate):
        REPLIES.count("given_up" if done.state == "unknown" else done.state)
    match done.state:
        case "failed":
            event("reply_failed", word=fate.word, code=fate.code, **names)
        case "unknown":
            event("reply_unknown", is_given_up=done.is_terminal(fate), code=fate.code, **names)
        case "pending" if fate.deed is Deed.NOT_NOW and fate.word is not None:
            event("reply_postponed", word=fate.word, code=fate.code, wait_s=fate.wait_s, scope=fate.scope, **names)
        case _ if fate.deed is Deed.ACCEPTED:
            event("reply_sent", **names)
            if reply.accepted_at is not None:
                VISIBLE_SECONDS.observe(time.time() - reply.accepted_at.timestamp())
