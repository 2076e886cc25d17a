"""`onelane session`: show a user's sessions, end them, hand them to a human and back."""

from uuid import UUID

import click

from onelane.bootstrap import Services
from onelane.commands.console import (
    USER,
    Named,
    as_json,
    counted,
    format_instant,
    limited,
    opened,
    print_json,
    print_pairs,
    print_table,
    user_of,
    user_or_owner,
    who,
)
from onelane.operations.users import SessionRecord, UserRecord, sessions_of
from onelane.sessions import users_ahead

SESSIONS_MAX = 1_000
HEADERS = ("session", "status", "started", "last message", "ended", "reason", "messages", "replies", "dead")


@click.group()
def session() -> None:
    """Show a user's sessions; end, escalate or hand back one; repair their times.

    USER is a user's id or channel:name. end, escalate and hand-back also take the id of a session: then they act on
    that one and no other, however often and late they are asked again.
    """


@session.command()
@click.argument("user", type=USER)
@limited
@as_json
def show(user: Named, limit: int, is_json: bool) -> None:
    """List a user's sessions, newest first."""
    with opened() as services:
        record = user_of(services, user)
        sessions = sessions_of(services.database, record.id, limit)
    if is_json:
        print_json({"user": record, "sessions": sessions})
        return
    print_pairs(user_pairs(record))
    click.echo()
    print_table(HEADERS, [_row(one) for one in sessions])


@session.command()
@click.argument("user_or_session", type=USER)
@as_json
def end(user_or_session: Named, is_json: bool) -> None:
    """End the open session. While messages wait, it ends after the last of them."""
    with opened() as services:
        record, session_id = _owner_unless_ended(services, user_or_session)
        did = services.acts.end_session(record.id, session_id, by=who())
        record = user_of(services, record.id)
    if did is None:
        raise click.ClickException(f"user {record.id} has no open session: there is nothing to end")
    if is_json:
        print_json({"user_id": record.id, "ended": did, "after_seq": record.ends_after_seq})
    elif did == "noted":
        waiting = counted(record.waiting, "message")
        click.echo(f"noted: {waiting} waiting, the session ends after message {record.ends_after_seq}")
    else:
        click.echo(f"ended ({did})")


@session.command()
@click.argument("user_or_session", type=USER)
@as_json
def escalate(user_or_session: Named, is_json: bool) -> None:
    """Hand the open session to a human; the bot stops answering."""
    with opened() as services:
        record, session_id = _owner_unless_ended(services, user_or_session)
        escalated = services.acts.escalate(record.id, session_id, by=who())
    if escalated is None:
        raise click.ClickException(f"user {record.id} has no open session: one opens with the next message")
    if is_json:
        print_json({"user_id": record.id, "escalated": escalated})
    elif escalated == "noted":
        click.echo("noted: a human has the session as soon as the waiting messages of the one before have left")
    else:
        click.echo(f"session {escalated} is escalated; to give it back: onelane session hand-back {record.id}")


@session.command(name="hand-back")
@click.argument("user_or_session", type=USER)
@as_json
def hand_back(user_or_session: Named, is_json: bool) -> None:
    """Give an escalated session back to the bot."""
    with opened() as services:
        record, session_id = _owner_unless_ended(services, user_or_session)
        handed_back = services.acts.hand_back(record.id, session_id, by=who())
    if handed_back is None:
        raise click.ClickException(f"user {record.id} has no escalated session: there is nothing to hand back")
    if is_json:
        print_json({"user_id": record.id, "handed_back": handed_back})
    elif handed_back == "noted":
        click.echo("the noted escalation is taken back")
    else:
        click.echo(f"session {handed_back} is the bot's again")


@session.command(name="fit-time")
@click.argument("user", type=USER, required=False)
@click.option("--all", "is_all", is_flag=True, help="Of all users.")
@as_json
def fit_time(user: Named | None, *, is_all: bool, is_json: bool) -> None:
    """Bring times that are ahead of Postgres' clock back to it."""
    if (user is None) != is_all:
        raise click.UsageError("name a user, or give --all")
    with opened() as services:
        users = users_ahead(services.database) if user is None else [user_of(services, user).id]
        fits = ((one, services.acts.fit_time(one, by=who())) for one in users)
        fitted = {one: by for one, by in fits if by is not None}
    if is_json:
        print_json({"fitted": [{"user_id": one, "ahead_s": by.total_seconds()} for one, by in fitted.items()]})
        return
    for one, by in fitted.items():
        click.echo(f"user {one}: brought back by {by}")
    if not fitted:
        click.echo("no times are ahead of the clock")


def user_pairs(user: UserRecord) -> list[tuple[str, str]]:
    """Return what there is to show of a user."""
    pairs = [("user", f"{user.id}, channel {user.channel}"), ("waiting", counted(user.waiting, "message"))]
    if user.dead:
        pairs.append(("dead", f"{counted(user.dead, 'message')}: onelane dead list --user {user.id}"))
    if user.paused_at is not None:
        pairs.append(("paused", f"since {format_instant(user.paused_at)} ({user.pause_reason})"))
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


def _owner_unless_ended(services: Services, user_or_session: Named) -> tuple[UserRecord, UUID | None]:
    """Find the user, and the session if it is named. Refuse one that has ended: there is nothing to do with it."""
    record = user_or_owner(services, user_or_session)
    for one in sessions_of(services.database, record.id, SESSIONS_MAX):
        if one.id == user_or_session and one.ended_at is not None:
            raise click.ClickException(f"session {one.id} ended at {format_instant(one.ended_at)} ({one.ended_reason})")
    if isinstance(user_or_session, UUID) and user_or_session != record.id:
        return record, user_or_session
    return record, None
