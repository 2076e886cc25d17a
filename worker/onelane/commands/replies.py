"""`onelane replies`: what waits to be sent, what is not known, and what became of the rest."""

import click

from onelane.commands.console import (
    USER,
    Named,
    as_json,
    format_duration,
    format_instant,
    limited,
    opened,
    print_json,
    print_pairs,
    print_table,
    user_of,
)
from onelane.operations import reply_views
from onelane.operations.reply_views import Held, Overview, ReplyRecord, ReplyState

HEADERS = ("reply", "user", "channel", "state", "requests", "committed", "not before", "why")


@click.command()
@click.option("--user", type=USER, help="Only this user's, of all states, newest first.")
@click.option("--state", type=click.Choice([str(state) for state in ReplyState]), help="Only those in this state.")
@limited
@as_json
def replies(user: Named | None, state: str | None, limit: int, is_json: bool) -> None:
    """Count replies that wait to be sent, and list them; name the channels that send nothing.

    pending, sending and unknown ones wait. Of a given_up one nobody knows whether it arrived, and nobody will. Without
    --user and --state those that wait are listed, oldest first.
    """
    with opened() as services:
        user_id = user_of(services, user).id if user is not None else None
        counts = reply_views.overview(services.database)
        found = reply_views.replies(
            services.database, user_id=user_id, state=ReplyState(state) if state else None, most=limit + 1
        )
    shown, more = found[:limit], len(found) > limit
    if is_json:
        print_json({**counts.model_dump(mode="json"), "replies": shown, "more": more})
        return
    print_pairs([*_pairs(counts), *(("held", _sentence(one)) for one in counts.held)])
    if shown:
        click.echo()
    print_table(HEADERS, [_row(one) for one in shown])
    if more:
        click.echo("… and more (--limit)")


def _pairs(counts: Overview) -> list[tuple[str, str]]:
    oldest = f", the oldest for {format_duration(counts.oldest_wait_s)}" if counts.oldest_wait_s else ""
    waiting = counts.pending + counts.sending + counts.unknown
    return [
        ("waiting", f"{waiting}{oldest}"),
        ("sending", str(counts.sending)),
        ("unknown", str(counts.unknown)),
        ("given up", str(counts.given_up)),
    ]


def _sentence(one: Held) -> str:
    until = f"until {format_instant(one.until)}" if one.until else ""
    if one.broken_at is None:
        return f"channel {one.channel}: its account's limit is reached, {until}"
    why = f"{one.word}{f' ({one.code})' if one.code else ''}"
    return (
        f"channel {one.channel} is broken since {format_instant(one.broken_at)}: {why}; one reply is tried every half "
        f"minute; once it is mended: onelane channel open {one.channel}"
    )


def _row(one: ReplyRecord) -> list[object]:
    return [
        one.reply_id,
        one.user_id,
        one.channel,
        one.state,
        one.requests,
        one.committed_at,
        one.not_before,
        one.why or "-",
    ]
