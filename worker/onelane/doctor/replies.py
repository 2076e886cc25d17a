"""Checks of the replies: none waits for long or is given up, no channel is broken, each has a way and a lane."""

import time
from typing import Final
from uuid import UUID

from onelane import keys
from onelane.channels import providers
from onelane.doctor import lanes, sample
from onelane.doctor.finding import Deployment, Finding, failed, ok, warning
from onelane.operations.reply_views import Overview, overview
from onelane.processes.reconciler import WAITING_USERS

WAITS_MAX_S: Final = 300.0
WITHOUT_WORDS: Final = {
    "meta": "access_token",
    "slack": "bot_token",
    "standard": "reply_url",
    "telegram": "bot_token",
    "twilio": "account_sid",
}
"""What a provider needs before it sends."""
STILL_WAITING: Final = "SELECT DISTINCT user_id FROM outbox WHERE user_id = ANY(%s)"
NO_LANE: Final = "start a worker: its reconciler makes the lane within seconds; if one runs, read its log"


def replies_leave(deployment: Deployment) -> Finding:
    """Check that replies are sent, that their fate is known, and that no channel is broken."""
    found = overview(deployment.database)
    faults = _faults(found)
    broken = tuple(f"{one.channel}: {one.word}{f' ({one.code})' if one.code else ''}" for one in found.broken)
    if broken:
        return failed(
            "; ".join(["a channel is broken, and sends nothing", *faults]),
            "mend its token or its account (onelane doctor --providers), then: onelane channel open NAME",
            broken,
        )
    if faults:
        return warning("; ".join(faults), "onelane replies; of one that is given up: onelane reply settle or resend")
    return ok(f"replies that wait to be sent: {found.pending + found.sending + found.unknown}; none is given up")


def channels_can_send(deployment: Deployment) -> Finding:
    """Check that every channel has a way to send: without one its replies are kept, and withheld."""
    mute = [name for name, provider in providers(deployment.settings.channels).items() if provider.sender is None]
    if not mute:
        return ok("every channel has a way to send")
    channels = deployment.settings.channels
    return warning(
        f"channels that send nothing, since they have no way to: {len(mute)}; their replies are withheld",
        "set what is missing, if they are to send",
        tuple(f"{name}: without {WITHOUT_WORDS.get(channels[name].provider, 'its token')}" for name in mute),
    )


def replies_have_lanes(deployment: Deployment) -> Finding:
    """Check that whoever has replies to be sent has a lane in Redis; a sample, read again until it is settled."""
    users = _sample(deployment)
    missing = _without_lane(deployment, users)
    settled_at = time.monotonic() + lanes.SETTLE_S
    while missing and time.monotonic() < settled_at:
        time.sleep(lanes.AGAIN_S)
        missing = _without_lane(deployment, missing)
    if not missing:
        return ok(f"who has replies to be sent has a lane; users looked at: {len(users)}")
    shown = tuple(f"user {user}" for user in missing[: lanes.SHOWN_MAX])
    return failed(f"users whose replies wait without a lane: {len(missing)} of {len(users)}", NO_LANE, shown)


def _faults(found: Overview) -> list[str]:
    faults = []
    if found.oldest_wait_s > WAITS_MAX_S:
        faults.append(f"a reply has waited for {found.oldest_wait_s:.0f} s")
    if found.unknown:
        faults.append(f"replies of which nobody knows yet whether they arrived: {found.unknown}")
    if found.given_up:
        faults.append(f"replies of which nobody will know: {found.given_up}")
    return faults


def _sample(deployment: Deployment) -> list[UUID]:
    database = deployment.database
    start = sample.anywhere(database)
    return sorted(sample.read_from(database, WAITING_USERS[keys.OUT], start, lanes.SAMPLE_MAX))


def _without_lane(deployment: Deployment, users: list[UUID]) -> list[UUID]:
    """Return who of them has no lane, and replies all the same: Redis is read first."""
    if not users:
        return []
    client, names = deployment.lanes.client, [str(user) for user in users]
    scores = deployment.lanes.scripts.ask(lambda: client.zmscore(keys.lanes(keys.OUT), names))
    missing = [user for user, score in zip(users, scores, strict=True) if score is None]
    if not missing:
        return []
    return [row.user_id for row in deployment.database.rows(STILL_WAITING, (missing,))]
