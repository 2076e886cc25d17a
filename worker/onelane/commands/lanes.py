"""`onelane lanes` and `onelane lane`: show who has work and which worker has it; pause, resume, redrive one user."""

from uuid import UUID

import click

from onelane.commands.console import (
    USER,
    Named,
    as_json,
    counted,
    format_duration,
    format_instant,
    limited,
    opened,
    print_json,
    print_pairs,
    print_table,
    user_of,
    warn_if_redis_was_away,
    who,
)
from onelane.commands.session import user_pairs
from onelane.operations.acts import Act
from onelane.operations.dead import last_line
from onelane.operations.lane import LaneView, view_lane
from onelane.operations.snapshot import COUNT_MAX, Lane, LaneState, Snapshot, Survey

HEADERS = ("user", "state", "for", "jobs", "held by", "fence")
WAITING_HEADERS = ("seq", "message", "accepted", "attempts", "put off", "deaths", "last error")


@click.command()
@limited
@as_json
def lanes(limit: int, is_json: bool) -> None:
    """Count the lanes by state, and list the first of each state."""
    with opened() as services:
        snapshot = Survey(services.lanes).snapshot(limit, services.database)
    if is_json:
        print_json(snapshot)
        return
    print_pairs(_totals(snapshot))
    if snapshot.lanes:
        click.echo()
    print_table(HEADERS, [_row(lane) for lane in snapshot.lanes])
    if (hidden := snapshot.total - len(snapshot.lanes)) > 0:
        click.echo(f"… and {hidden} more (--limit)")


class LaneGroup(click.Group):
    """Takes `lane USER` for `lane show USER`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `show` before an argument that is neither a command nor --help."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=LaneGroup)
def lane() -> None:
    """Show one user's lane (`lane USER`); pause, resume or redrive it.

    USER is a user's id or channel:name.
    """


@lane.command()
@click.argument("user", type=USER)
@limited
@as_json
def show(user: Named, limit: int, is_json: bool) -> None:
    """Show the lane's jobs, holder, session and waiting messages."""
    with opened() as services:
        view = view_lane(services.database, services.lanes, user_of(services, user), limit)
    if is_json:
        print_json(view)
        return
    print_pairs([*user_pairs(view.user), *_lane_pairs(view)])
    if view.waiting:
        click.echo()
    print_table(
        WAITING_HEADERS,
        [
            [
                *(one.seq, one.message_id, one.accepted_at, one.attempts, one.laters, one.deaths),
                last_line(one.last_error) or None,
            ]
            for one in view.waiting
        ],
    )


@lane.command()
@click.argument("user", type=USER)
@as_json
def pause(user: Named, is_json: bool) -> None:
    """Keep a user's messages waiting. A turn that is running still commits."""
    with opened() as services:
        user_id = user_of(services, user).id
        act = services.acts.pause(user_id, by=who())
        is_paused = user_of(services, user_id).paused_at is not None
    how = "paused" if act.did else "was paused already"
    outcome = f"{how}; to resume: onelane lane resume {user_id}" if is_paused else "was resumed meanwhile"
    _print_act(user_id, act, outcome, {"paused": is_paused}, is_json=is_json)


@lane.command()
@click.argument("user", type=USER)
@as_json
def resume(user: Named, is_json: bool) -> None:
    """Let a paused user's messages run again."""
    with opened() as services:
        user_id = user_of(services, user).id
        act = services.acts.resume(user_id, by=who())
    _print_act(user_id, act, "resumed" if act.did else "was not paused", {"resumed": act.did}, is_json=is_json)


@lane.command()
@click.argument("user", type=USER)
@as_json
def redrive(user: Named, is_json: bool) -> None:
    """Let all dead messages of a user run again: next, in their order."""
    with opened() as services:
        user_id = user_of(services, user).id
        redriven = services.acts.redrive(user_id, by=who())
    seqs = redriven[0].seqs if redriven else ()
    if is_json:
        print_json({"user_id": user_id, "redriven": seqs, "redis": all(one.redis for one in redriven)})
        return
    click.echo(f"{counted(len(seqs), 'dead message')} redriven" + (f": {', '.join(map(str, seqs))}" if seqs else ""))
    warn_if_redis_was_away(redriven)


def _print_act(user_id: UUID, act: Act, outcome: str, now: dict[str, bool], *, is_json: bool) -> None:
    if is_json:
        print_json({"user_id": user_id, **now, "redis": act.redis})
        return
    click.echo(f"user {user_id}: {outcome}")
    warn_if_redis_was_away([act])


def _totals(snapshot: Snapshot) -> list[tuple[str, str]]:
    backlog = snapshot.backlog
    about = "" if snapshot.is_exact else " at least"
    pairs = [
        ("lanes", str(snapshot.total)),
        ("due", f"{snapshot.due}, the oldest for {format_duration(snapshot.oldest_wait_s)}" if snapshot.due else "0"),
        ("leased", f"{snapshot.leased}{about}"),
        ("collecting", str(snapshot.collecting)),
        ("parked", f"{snapshot.parked}{' at most' if about else ''}"),
        ("paused", str(snapshot.paused)),
        ("workers", f"{snapshot.workers_alive}" + (", suspended: rq resume" if snapshot.is_suspended else "")),
    ]
    if backlog is not None:
        pairs.append(("messages", f"{_count(backlog.waiting)} waiting, {_count(backlog.dead)} dead"))
    return pairs


def _count(number: int) -> str:
    return f"{number} or more" if number == COUNT_MAX else str(number)


def _row(lane: Lane) -> list[object]:
    return [lane.user_id, lane.state, _format_due(lane), lane.jobs, lane.worker, lane.fence]


def _format_due(lane: Lane) -> str:
    if lane.state is LaneState.DUE:
        return f"due for {format_duration(-(lane.due_in_s or 0))}"
    if lane.state in {LaneState.COLLECTING, LaneState.PARKED}:
        return f"another {format_duration(lane.due_in_s)}"
    if lane.lease_ends_in_s is not None:
        return f"lease for {format_duration(lane.lease_ends_in_s)}"
    return "until resumed"


def _lane_pairs(view: LaneView) -> list[tuple[str, str]]:
    pairs = [("lane", _format_lane(view)), ("session", _format_session(view))]
    if view.cached_session is not None:
        pairs.append(("cached", f"{view.cached_session} for {format_duration(view.cached_for_s)}"))
    return pairs


def _format_lane(view: LaneView) -> str:
    if view.redis is not None:
        return f"unknown: {view.redis}"
    if view.lane is None:
        return "no work"
    held = f", held by {view.lane.worker}, fence {view.lane.fence}" if view.lane.worker else ""
    return f"{view.lane.state}, {_format_due(view.lane)}, {counted(view.lane.jobs, 'job')}{held}"


def _format_session(view: LaneView) -> str:
    if view.session is None:
        return "none is open"
    session = view.session
    since = session.escalated_at if session.status == "escalated" else session.started_at
    return f"{session.id}, {session.status} since {format_instant(since or session.started_at)}"
