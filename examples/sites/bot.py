"""A list to choose from: a number means what its user saw."""

from onelane import Button, Reply, Turn

SITES = ["Champigny", "Créteil", "Vincennes"]


def handle(turn: Turn) -> Reply | str:
    """Show the sites, then what was chosen."""
    chosen = turn.message.button or turn.message.text
    shown = turn.tool_output("list_sites")
    if shown and chosen.isdecimal() and 0 < int(chosen) <= len(shown):
        return f"{shown[int(chosen) - 1]} opens at 7:00."
    turn.save_tool_output("list_sites", SITES)
    buttons = [Button(id=str(number), title=name) for number, name in enumerate(SITES, 1)]
    return Reply("Which site?", buttons=buttons)
