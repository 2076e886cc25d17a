"""`onelane quarantine`: webhooks that are signed and were not understood."""

from typing import NoReturn
from uuid import UUID

import click

from onelane.commands.console import (
    EXIT_FAILED,
    as_json,
    counted,
    format_instant,
    limited,
    opened,
    print_json,
    print_pairs,
    print_table,
    who,
)
from onelane.inbox.quarantine import Kept
from onelane.operations import quarantine as operations
from onelane.operations.audit import record
from onelane.operations.quarantine import NotConfigured

HEADERS = ("webhook", "channel", "received", "bytes", "reason")


@click.group()
def quarantine() -> None:
    """List webhooks that were not understood, show them, read them again, or drop them.

    They are signed, and were answered as if they were understood: their provider does not deliver them again. They are
    kept whole for QUARANTINE_DAYS.
    """


@quarantine.command(name="list")
@click.option("--channel", help="Only this channel's.")
@limited
@as_json
def list_(channel: str | None, limit: int, is_json: bool) -> None:
    """List what is kept, oldest first."""
    with opened() as services:
        found = services.quarantine.all(channel, limit + 1)
    shown, more = found[:limit], len(found) > limit
    if is_json:
        print_json({"quarantined": shown, "more": more})
        return
    if not shown:
        click.echo("nothing is in quarantine")
    print_table(HEADERS, [[one.id, one.channel, one.received_at, one.size, _shortly(one.reasons)] for one in shown])
    if more:
        click.echo("… and more (--limit)")


@quarantine.command()
@click.argument("webhook_id", type=click.UUID)
@click.option("--body", "with_body", is_flag=True, help="Print the body too: it holds what users wrote.")
@as_json
def show(webhook_id: UUID, with_body: bool, is_json: bool) -> None:
    """Show what is known of one, without what it holds."""
    with opened() as services:
        kept = services.quarantine.one(webhook_id)
        request = services.quarantine.request(webhook_id, "") if kept and with_body else None
        if kept and request:
            record(services.database, who(), "body_shown", kept.channel, {"quarantined_id": webhook_id})
    if kept is None:
        _fail_unknown(webhook_id)
    body = request.body.decode(errors="replace") if request else None
    if is_json:
        print_json({**kept.model_dump(mode="json"), **({"body": body} if request else {})})
        return
    print_pairs(_pairs(kept))
    if body is not None:
        click.echo()
        click.echo(body)


@quarantine.command()
@click.argument("webhook_id", type=click.UUID, required=False)
@click.option("--all", "is_all", is_flag=True, help="All that are kept, oldest first.")
@click.option("--channel", help="With --all: only this channel's.")
@as_json
def replay(webhook_id: UUID | None, is_all: bool, channel: str | None, is_json: bool) -> None:
    """Read one again, and accept what this release understands.

    Its lines take their numbers now, in their order; what was accepted before is a duplicate. It leaves quarantine once
    all of it is understood.
    """
    if (webhook_id is None) != is_all or (channel and not is_all):
        raise click.UsageError("give a WEBHOOK_ID, or --all")
    with opened() as services:
        ids = [webhook_id] if webhook_id else [one.id for one in services.quarantine.all(channel, 10_000)]
        channels = services.settings.channels
        of_ours = (services.database, services.quarantine, services.receiving)
        outcomes = [operations.replay(one, *of_ours, channels, by=who()) for one in ids]
    if webhook_id and outcomes == [None]:
        _fail_unknown(webhook_id)
    replayed = [one for one in outcomes if one]
    if is_json:
        print_json({"replayed": replayed})
    for one in [] if is_json else replayed:
        click.echo(_sentence(one))
    if any(isinstance(one, NotConfigured) or one.reasons for one in replayed):
        click.get_current_context().exit(EXIT_FAILED)


@quarantine.command()
@click.argument("webhook_id", type=click.UUID)
@click.option("--yes", is_flag=True, help="Drop it without asking.")
def drop(webhook_id: UUID, yes: bool) -> None:
    """Delete one for good: its provider will not deliver it again."""
    if not yes:
        click.confirm("It is deleted for good, with all that it holds. Drop it", abort=True)
    with opened() as services:
        if not operations.drop(webhook_id, services.database, services.quarantine, by=who()):
            _fail_unknown(webhook_id)
    click.echo(f"webhook {webhook_id} is dropped")


def _sentence(one: operations.Replayed | NotConfigured) -> str:
    if isinstance(one, NotConfigured):
        return f"webhook {one.id}: there is no channel {one.channel} any more; it stays in quarantine"
    stands = f"{counted(one.accepted, 'line')} accepted, {one.duplicates} known before"
    left = f"stays in quarantine: {_shortly(one.reasons)}" if one.reasons else "has left quarantine"
    return f"webhook {one.id}: {stands}; it {left}"


def _pairs(kept: Kept) -> list[tuple[str, str]]:
    return [
        ("webhook", str(kept.id)),
        ("channel", kept.channel),
        ("received", format_instant(kept.received_at)),
        ("body", f"{counted(kept.size, 'byte')} of {kept.content_type or 'no type'}"),
        *(("reason", reason) for reason in kept.reasons),
    ]


def _shortly(reasons: tuple[str, ...]) -> str:
    first, *more = reasons or ("",)
    return f"{first} (and {len(more)} more)" if more else first


def _fail_unknown(webhook_id: UUID) -> NoReturn:
    raise click.ClickException(f"webhook {webhook_id} is not in quarantine: see onelane quarantine list")
