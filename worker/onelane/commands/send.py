"""`onelane send`: send messages as a provider would."""

import sys

import click


@click.command()
@click.argument("text", default="")
@click.option("--user", required=True, help="The sender, as the provider names it: a name, a number, an id.")
@click.option("--channel", help="The channel; default: demo, else the first that is configured.")
@click.option("--button", help="The payload of a button that was pressed.")
@click.option("--message-id", help="The provider's id of the message; the same id again is a duplicate.")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, help="Messages sent at once: 'TEXT 1', 'TEXT 2', …")
@click.option("--wait/--no-wait", default=True, help="Wait for the replies.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.1, 600), default=30, show_default=True, help="Seconds to wait."
)
def send(
    text: str,
    user: str,
    channel: str | None,
    button: str | None,
    message_id: str | None,
    count: int,
    wait: bool,
    timeout_s: float,
) -> None:
    """Send TEXT as a provider would; print the reply and its session.

    The webhook is signed, and posted to the service that `onelane run` started, or to PORT of this machine.
    """
    from onelane.dev import talk

    sys.exit(
        talk.send(
            user,
            text,
            channel=channel,
            button=button,
            message_id=message_id,
            count=count,
            wait=wait,
            timeout_s=timeout_s,
        )
    )
