"""The replay as text: one table for each side, and what it shows."""

from collections.abc import Iterator, Sequence
from datetime import UTC

from onelane.dev.incident.account import SITE, Account, Incident, Line
from onelane.dev.incident.timeline import CHOSEN, LISTED

ANSWER_MAX = 64
HEADINGS = ("time (UTC)", "the user", "seq", "session", "the bot")


def format_incident(incident: Incident) -> str:
    """Format both sides."""
    return "\n".join(
        [
            "The naive resolver: reads, then acts; ends everything on an error; recognises a new day by its hours.",
            *_side(incident.naive),
            "",
            "Onelane: the same webhooks, over HTTP, to a web, a worker, PostgreSQL and Redis.",
            *_side(incident.real),
        ]
    )


def _side(account: Account) -> Iterator[str]:
    yield ""
    yield from _table([HEADINGS, *(_cells(account, line) for line in account.lines)])
    yield ""
    counts = ", ".join(f"{name} {count}" for name, count in account.messages_per_session.items())
    yield f"  sessions opened     {len(account.sessions)}   (messages of the user: {counts})"
    yield f"  ended               {', '.join(_ends(account)) or 'none'}"
    lists = ", ".join(account.name(session) for session in account.sessions_with_list) or "nowhere"
    yield f"  tool output         {LISTED.input} saved it in {lists}, {CHOSEN.input} looked in {_looked_in(account)}"
    yield f"  {SITE} found     {'yes' if account.is_found else 'no'}"


def _ends(account: Account) -> Iterator[str]:
    for reason in dict.fromkeys(opened.ended_by for opened in account.sessions if opened.ended_by):
        names = (account.name(opened.id) for opened in account.sessions if opened.ended_by == reason)
        yield f"{' '.join(names)} by {reason}"


def _looked_in(account: Account) -> str:
    return account.name(account.tap.session)


def _cells(account: Account, line: Line) -> tuple[str, ...]:
    return (
        f"{line.accepted_at.astimezone(UTC):%H:%M:%S.%f}"[:-3],
        line.moment.input,
        str(line.seq or "-"),
        account.name(line.session),
        _shortened(line.answer),
    )


def _shortened(answer: str | None) -> str:
    if answer is None:
        return "(no answer: the request failed)"
    flat = answer.replace("\n", " ")
    return flat if len(flat) <= ANSWER_MAX else f"{flat[: ANSWER_MAX - 1]}…"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
