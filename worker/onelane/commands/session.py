"""`onelane session`: look at a user's sessions, end them, hand them to a human and back."""

from uuid import UUID

import click

from onelane.commands.console import (
    USER,
    as_json,
    at,
    limited,
    many,
    opened,
    say_json,
    say_pairs,
    say_table,
    user_of,
    user_or_owner,
)
from onelane.operations.users import SessionRecord, UserRecord, sessions_of

HEADERS = ("session", "status", "started", "last message", "ended", "reason", "messages", "replies", "dead")


@click.group()
def session() -> None:
    """Look at sessions, end them, hand them to a human and back.

    A user is named by id or as channel:sender; to end, escalate and hand back, by a session's id too.
    """


@session.command()
@click.argument("user", type=USER)
@limited
@as_json
def show(user: UUID, limit: int, is_json: bool) -> None:
    """List a user's sessions, newest first."""
    with opened() as services:
        record = user_of(services, user)
        sessions = sessions_of(services.database, user, limit)
    if is_json:
        say_json({"user": record, "sessions": sessions})
        return
    say_pairs(pairs_of(record))
    click.echo()
    say_table(HEADERS, [_row(one) for one in sessions])


@session.command()
@click.argument("user_or_session", type=USER)
@as_json
def end(user_or_session: UUID, is_json: bool) -> None:
    """End the open session; with messages waiting, after the last of them."""
    with opened() as services:
        record = user_or_owner(services, user_or_session)
        _refuse_ended(sessions_of(services.database, record.id, 1_000), user_or_session)
        did = services.acts.end_session(record.id)
        record = user_of(services, record.id)
    if did is None:
        raise click.ClickException(f"user {record.id} has no open session: there is nothing to end")
    if is_json:
        say_json({"user_id": record.id, "ended": did, "after_seq": record.ends_after_seq})
    elif did == "noted":
        click.echo(
            f"noted: {many(record.waiting, 'message')} waiting, the session ends after message {record.ends_after_seq}"
        )
    else:
        click.echo(f"ended ({did})")


@session.command()
@click.argument("user_or_session", type=USER)
@as_json
def escalate(user_or_session: UUID, is_json: bool) -> None:
    """Hand the open session to a human: messages are kept without the bot's answer."""
    with opened() as services:
        record = user_or_owner(services, user_or_session)
        _refuse_ended(sessions_of(services.database, record.id, 1_000), user_or_session)
        escalated = services.acts.escalate(record.id)
    if escalated is None:
        raise click.ClickException(f"user {record.id} has no open session: one opens with the next message")
    if is_json:
        say_json({"user_id": record.id, "escalated": escalated})
    else:
        click.echo(f"session {escalated} is escalated; give it back: onelane session hand-back {record.id}")


@session.command(name="hand-back")
@click.argument("user_or_session", type=USER)
@as_json
def hand_back(user_or_session: UUID, is_json: bool) -> None:
    """Give an escalated session back to the bot."""
    with opened() as services:
        record = user_or_owner(services, user_or_session)
        handed_back = services.acts.hand_back(record.id)
    if handed_back is None:
        raise click.ClickException(f"user {record.id} has no escalated session: there is nothing to hand back")
    if is_json:
        say_json({"user_id": record.id, "handed_back": handed_back})
    else:
        click.echo(f"session {handed_back} is the bot's again")


def pairs_of(user: UserRecord) -> list[tuple[str, str]]:
    """Word a user."""
    pairs = [("user", f"{user.id}, channel {user.channel}"), ("waiting", many(user.waiting, "message"))]
    if user.dead:
        pairs.append(("dead", f"{many(user.dead, 'message')}: onelane dead list --user {user.id}"))
    if user.paused_at is not None:
        pairs.append(("paused", f"since {at(user.paused_at)} ({user.pause_reason})"))
    if user.ends_after_seq is not None:
        pairs.append(("ends", f"after message {user.ends_after_seq} ({user.ends_for})"))
    return pairs


def _row(one: SessionRecord) -> list[object]:
    return [
        one.id,
        one.status,
        one.started_at,
        one.last_message_at,
        one.ended_at,
        one.ended_reason,
        one.messages,
        one.replies,
        one.dead,
    ]


def _refuse_ended(sessions: list[SessionRecord], session_id: UUID) -> None:
    """Refuse an act on a session that is over: it would hit the one that is open now."""
    for one in sessions:
        if one.id == session_id and one.ended_at is not None:
            raise click.ClickException(f"session {session_id} ended at {at(one.ended_at)} ({one.ended_reason})")
