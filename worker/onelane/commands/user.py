"""`onelane user`: show who a user is; merge two, confirm an owner, lift an opting out; give out and forget a user."""

import json
from uuid import UUID

import click

from onelane.commands.console import (
    USER,
    Named,
    as_json,
    counted,
    format_instant,
    opened,
    print_json,
    print_pairs,
    user_of,
    warn_if_redis_was_away,
    who,
)
from onelane.commands.session import user_pairs
from onelane.operations import forgetting
from onelane.operations.acts import Act
from onelane.operations.identity import Identity, identity_of
from onelane.operations.lane import view_lane
from onelane.operations.users import SessionRecord


@click.group()
def user() -> None:
    """Show who a user is; make one user of two, confirm an owner, lift an opting out; export, forget a user.

    USER is a user's id or channel:name, with any name of the user.
    """


@user.command()
@click.argument("user", type=USER)
@as_json
def show(user: Named, is_json: bool) -> None:
    """Show a user's identity, with whom it is in conflict, and what is open and waits."""
    with opened() as services:
        record = user_of(services, user)
        identity = identity_of(services.database, record.id)
        session = view_lane(services.database, services.lanes, record, 0).session
    if identity is None:
        raise click.ClickException("the user was forgotten a moment ago")
    if is_json:
        print_json({"user": record, "identity": identity, "session": session})
        return
    print_pairs([*user_pairs(record), ("session", _format_session(session)), *_identity_pairs(identity)])


@user.command()
@click.argument("winner", type=USER)
@click.argument("loser", type=USER)
@as_json
def merge(winner: Named, loser: Named, is_json: bool) -> None:
    """Make one user of two: WINNER gets LOSER's names, and what waits of LOSER behind its own."""
    with opened() as services:
        kept, given_up = user_of(services, winner).id, user_of(services, loser).id
        merged = services.acts.merge(kept, given_up, by=who())
    if merged is None:
        raise click.ClickException(
            "they cannot be merged: of two channels, or the same, or one was merged before (onelane user show)"
        )
    if is_json:
        print_json({"user_id": kept, "merged_id": given_up, **merged.model_dump()})
        return
    if merged.did:
        click.echo(f"user {given_up} is user {kept} now, {counted(merged.moved, 'waiting message')} moved")
    else:
        click.echo(f"user {given_up} was merged into {kept} before")
    warn_if_redis_was_away([merged])


@user.command()
@click.argument("user", type=USER)
@as_json
def confirm(user: Named, is_json: bool) -> None:
    """Confirm that a number still is the same person's: what was put aside is offered again."""
    with opened() as services:
        user_id = user_of(services, user).id
        act = services.acts.confirm(user_id, by=who())
    _print_act(user_id, act, "confirmed", "no change of owner to confirm", is_json=is_json)


@user.command(name="opt-in")
@click.argument("user", type=USER)
@as_json
def opt_in(user: Named, is_json: bool) -> None:
    """Lift that a user wants no more messages."""
    with opened() as services:
        user_id = user_of(services, user).id
        act = services.acts.opt_in(user_id, by=who())
    _print_act(user_id, act, "opted in", "had not opted out", is_json=is_json)


@user.command()
@click.argument("user", type=USER)
def export(user: Named) -> None:
    """Print all that is stored of a user: one JSON object a line, with the table and the row."""
    with opened() as services:
        for table, row in forgetting.export(services, user_of(services, user).id, who()):
            click.echo(json.dumps({"table": table, "row": row}, ensure_ascii=False))


@user.command()
@click.argument("user", type=USER)
@click.option("--yes", is_flag=True, help="Forget without asking.")
@as_json
def forget(user: Named, yes: bool, is_json: bool) -> None:
    """Delete all that is stored of a user, under all names: for good."""
    with opened() as services:
        user_id = user_of(services, user).id
        if not yes:
            click.confirm(f"All that is stored of user {user_id} is deleted for good. Forget", abort=True, err=True)
        forgotten = forgetting.forget(services, user_id, who())
    if is_json:
        print_json({"user_id": user_id, "did": forgotten is not None, **(forgotten.model_dump() if forgotten else {})})
    elif forgotten is None:
        click.echo(f"user {user_id} was forgotten before")
    else:
        webhooks = counted(forgotten.quarantined, "webhook")
        click.echo(f"user {user_id} is forgotten: {counted(forgotten.messages, 'message')}, {webhooks} in quarantine")


def _print_act(user_id: UUID, act: Act, done: str, nothing: str, *, is_json: bool) -> None:
    if is_json:
        print_json({"user_id": user_id, "did": act.did})
    else:
        click.echo(f"user {user_id}: {done if act.did else nothing}")


def _format_session(session: SessionRecord | None) -> str:
    return "none is open" if session is None else f"{session.id}, {session.status}"


def _identity_pairs(identity: Identity) -> list[tuple[str, str]]:
    pairs = [("names", str(identity.names))]
    if identity.opted_out_at is not None:
        pairs.append(("opted out", f"since {format_instant(identity.opted_out_at)}"))
    if identity.owner_changed_at is not None:
        pairs.append(
            ("owner", f"perhaps another since {format_instant(identity.owner_changed_at)}: onelane user confirm")
        )
    if identity.merged_into is not None:
        pairs.append(("merged", f"into {identity.merged_into}"))
    pairs += [("merged", f"{one} into this one") for one in identity.merged]
    pairs += [("conflict", f"perhaps the same as {one}: onelane user merge") for one in identity.conflicts]
    return pairs
