"""What the user did that evening, as the provider delivered it.

Times and buttons are the report's (docs/INCIDENT.md lists which); other texts, the number, the addresses are made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from onelane.channels import Provider, provider_of
from onelane.channels.provider import Signed
from onelane.config import Channel
from onelane.deliveries import Delivery

CHANNEL: Final = "support"
PUBLIC_URL: Final = "https://bot.example"
ADDRESS: Final = f"{PUBLIC_URL}/webhooks/{CHANNEL}"
"""The address that the provider knows and signs; the service listens elsewhere, as behind any router."""
SENDER: Final = "whatsapp:+33639980117"  # of the numbers that France keeps free for fiction
TIME_HEADER: Final = "X-Replay-At"
"""The header of a replayed webhook with its time; only `app/onelane_web/development/replay.py` reads it."""


@dataclass(frozen=True)
class Moment:
    """One thing that the user did."""

    at: datetime
    text: str
    button: str | None = None

    @property
    def input(self) -> str:
        """What the bot receives: the button, else the text."""
        return self.button or self.text

    @cached_property
    def delivery(self) -> Delivery:
        """The message as the provider delivers it."""
        sid = f"SM{int(self.at.timestamp() * 1_000_000):032x}"
        return Delivery(senders=(SENDER,), external_id=sid, text=self.text, button=self.button)

    def signed(self, token: str) -> Signed:
        """Make the request with which the provider delivers it."""
        return provider(token).sign(ADDRESS, self.delivery)


def _at(second: int, microsecond: int = 0) -> datetime:
    return datetime(2026, 1, 17, 20, 39, second, microsecond, tzinfo=UTC)


Step = Sequence[Moment]
"""What arrives at once: one message, or two."""

LISTED: Final = Moment(_at(17, 303_167), "Voir les chantiers", "view_sites_fr")
PAIR: Final = (Moment(_at(24, 532_543), "merci"), Moment(_at(24, 648_447), "je choisis"))
CHOSEN: Final = Moment(_at(27, 151_000), "Champigny", "option_1_fr")
EVENING: Final[tuple[Step, ...]] = ((Moment(_at(6), "bonjour"),), (LISTED,), PAIR, (CHOSEN,))


def channel(token: str) -> dict[str, Any]:
    """Configure the channel: the incident's provider, and the rule that its hour-of-day rule was meant to be."""
    return {
        "provider": "twilio",
        "secrets": [token],
        "public_url": PUBLIC_URL,
        "day_start": "06:00",
        "timezone": "Europe/Paris",
    }


def provider(token: str) -> Provider:
    """Make the channel's provider."""
    return provider_of(Channel(**channel(token)))
