"""`onelane send`: be a provider for once."""

import sys

import click

from onelane.dev import talk as sending


@click.command()
@click.argument("text", default="")
@click.option("--user", required=True, help="Who writes: a name, a number, whatever the provider would say.")
@click.option("--channel", help="Default: demo, else the first configured.")
@click.option("--button", help="A pressed button's payload.")
@click.option("--message-id", help="The provider's id; sending it twice is a duplicate.")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, help="Messages sent at once: 'text 1', 'text 2', …")
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
    """Sign TEXT as a provider would, post it to the running service, and print the reply with its session."""
    sys.exit(
        sending.send(
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
