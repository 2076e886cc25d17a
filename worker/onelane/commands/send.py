"""`onelane send`: do what a person does, as a provider would report it."""

import sys
from typing import Any

import click


def _degrees(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        latitude, longitude = map(float, text.split(","))
    except ValueError:
        raise click.BadParameter("must be LAT,LON, for example 48.86,2.35") from None
    return latitude, longitude


@click.command()
@click.argument("text", default="")
@click.option("--user", required=True, help="Who: a name, of which the provider's kind of id is made.")
@click.option("--channel", help="The channel; default: demo, else the first that is configured.")
@click.option("--provider", help="The first channel of this provider: meta, slack, standard, telegram, twilio.")
@click.option("--button", help="The payload of a button that was pressed.")
@click.option("--message-id", help="The provider's id of the message; the same id again is a duplicate.")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, help="Messages sent at once: 'TEXT 1', 'TEXT 2', …")
@click.option("--album", type=click.IntRange(1, 32), help="So many pictures, sent as the provider sends them.")
@click.option("--location", callback=_degrees, metavar="LAT,LON", help="A place.")
@click.option("--edit", metavar="ID", help="That the message with this id now has TEXT.")
@click.option("--delete", metavar="ID", help="That the message with this id was deleted.")
@click.option("--react", nargs=2, metavar="EMOJI ID", help="A reaction to the message with this id.")
@click.option("--then-new-id", is_flag=True, help="The person's id changes first; TEXT comes under the new one.")
@click.option(
    "--status", type=click.Choice(["sent", "delivered", "read", "failed"]), help="What became of a reply, instead."
)
@click.option("--reply", metavar="ID", help="The reply that --status is of: its id, or the provider's.")
@click.option("--wait/--no-wait", default=True, help="Wait for the replies.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.1, 600), default=30, show_default=True, help="Seconds to wait."
)
def send(
    channel: str | None, provider: str | None, album: int | None, *, wait: bool, timeout_s: float, **act: Any
) -> None:
    """Send TEXT as a provider would; print the reply and its session.

    The webhook is signed, and posted to the service that `onelane run` started, or to PORT of this machine.
    """
    from onelane.dev import talk
    from onelane.dev.played import Act

    doing = Act(album=album or 0, **act)
    sys.exit(talk.send(doing, channel=channel, provider=provider, wait=wait, timeout_s=timeout_s))
