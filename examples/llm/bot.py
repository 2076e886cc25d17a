"""A bot that asks a language model, which may call a function."""

from onelane.handlers.llm import ModelBot


def opening_hours(day: str) -> str:
    """Return the opening hours of the shop on a day of the week."""
    return "closed" if day.lower() == "sunday" else "9:00 to 18:00"


handle = ModelBot(tools=[opening_hours]).handle
