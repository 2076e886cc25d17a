"""A bot under test: people talk to it, in memory within milliseconds, or on real servers."""

from onelane.testing.bot.answer import Answer, Outcome, SessionSeen
from onelane.testing.bot.bot import Bot
from onelane.testing.bot.clock import Clock
from onelane.testing.bot.person import Person

__all__ = ["Answer", "Bot", "Clock", "Outcome", "Person", "SessionSeen"]
