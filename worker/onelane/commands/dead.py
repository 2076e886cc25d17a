"""`onelane dead`: list dead messages, retry them, or drop them."""

from uuid import UUID

import click

from onelane.commands.console import (
    EXIT_FAILED,
    USER,
    Named,
    as_json,
    counted,
    limited,
    opened,
    print_json,
    print_table,
    user_of,
    warn_if_redis_was_away,
    who,
)
from onelane.operations.acts import Act, Redriven
from onelane.operations.dead import dead_messages

HEADERS = ("message", "user", "seq", "session", "attempts", "died", "error")


@click.group()
def dead() -> None:
    """List dead messages, retry them, or drop them.

    A message is dead after its last failed attempt. It stays in Postgres, and later messages of its user run.
    """


@dead.command(name="list")
@click.option("--user", type=USER, help="Only this user's messages.")
@limited
@as_json
def list_(user: Named | None, limit: int, is_json: bool) -> None:
    """List dead messages by user, in their order."""
    with opened() as services:
        user_id = user_of(services, user).id if user is not None else None
        found = dead_messages(services.database, user_id=user_id, most=limit + 1)
    shown, more = found[:limit], len(found) > limit
    if is_json:
        print_json({"dead": shown, "more": more})
        return
    if not shown:
        click.echo("no message is dead")
    print_table(
        HEADERS,
        [
            [one.message_id, one.user_id, one.seq, one.session_id, one.attempts, one.died_at, one.reason]
            for one in shown
        ],
    )
    if more:
        click.echo("… and more (--limit)")


@dead.command()
@click.argument("message_id", type=click.UUID, required=False)
@click.option("--user", type=USER, help="All dead messages of this user.")
@click.option("--all", "is_all", is_flag=True, help="All dead messages of all users.")
@as_json
def retry(message_id: UUID | None, user: Named | None, is_all: bool, is_json: bool) -> None:
    """Let dead messages run again: next, in their order.

    They keep their numbers and their sessions.
    """
    if sum((message_id is not None, user is not None, is_all)) != 1:
        raise click.UsageError("give a MESSAGE_ID, --user USER or --all")
    with opened() as services:
        if message_id is not None:
            _print_one(message_id, services.acts.retry(message_id, by=who()), "waits again", is_json=is_json)
            return
        redriven = services.acts.redrive(user_of(services, user).id if user is not None else None, by=who())
    _print_redriven(redriven, is_json=is_json)


@dead.command()
@click.argument("message_id", type=click.UUID)
@as_json
def drop(message_id: UUID, is_json: bool) -> None:
    """Drop a dead message: it stays dead, and is not listed any more."""
    with opened() as services:
        act = services.acts.drop(message_id, by=who())
    _print_one(message_id, act, "is dropped", is_json=is_json)


def _print_one(message_id: UUID, act: Act, outcome: str, *, is_json: bool) -> None:
    if is_json:
        print_json({"message_id": message_id, **act.model_dump()})
    elif act.did:
        click.echo(f"message {message_id} {outcome}")
    else:
        click.echo(f"message {message_id} is not dead, or was dropped: see onelane dead list", err=True)
    if not is_json:
        warn_if_redis_was_away([act])
    if not act.did:
        click.get_current_context().exit(EXIT_FAILED)


def _print_redriven(redriven: list[Redriven], *, is_json: bool) -> None:
    if is_json:
        print_json({"redriven": redriven})
        return
    for one in redriven:
        click.echo(f"user {one.user_id}: {', '.join(map(str, one.seqs))}")
    click.echo(f"{counted(sum(len(one.seqs) for one in redriven), 'dead message')} redriven")
    warn_if_redis_was_away(redriven)
