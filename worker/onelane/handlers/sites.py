"""The bot of the incident: it lists construction sites in French, then describes the one that was chosen.

The choice is only a number. Its meaning is in the tool output `list_sites` of the same session: the list that this user
saw, in the order in which it was shown.
"""

import re
from typing import Final

from onelane.bot import Turn

LIST: Final = "view_sites_fr"
OPTION: Final = re.compile(r"option_([1-9][0-9]{0,3})_fr")
OUTPUT: Final = "list_sites"
GREETING: Final = "Bonjour ! Touchez « Voir les chantiers » pour commencer."

Site = dict[str, str]

SITES: Final[tuple[Site, ...]] = (
    {"id": "champigny", "name": "Champigny", "address": "18 quai de la Marne", "opens": "7 h"},
    {"id": "creteil", "name": "Créteil", "address": "3 allée du Lac", "opens": "7 h 30"},
    {"id": "vincennes", "name": "Vincennes", "address": "41 rue du Donjon", "opens": "8 h"},
)


def handle(turn: Turn) -> str:
    """Answer a button, or the same text typed; greet after any other message."""
    choice = (turn.message.button or turn.message.text).strip()
    if choice == LIST:
        with turn.tool(OUTPUT, {"language": "fr"}) as call:
            call.output = turn.step(OUTPUT, listed)
        return _numbered(call.output)
    if option := OPTION.fullmatch(choice):
        return _chosen(turn.tool_output(OUTPUT), int(option[1]))
    return GREETING


def listed() -> list[Site]:
    """Ask for the sites, in their order: a turn that runs again does not ask again."""
    return list(SITES)


def _numbered(sites: list[Site]) -> str:
    return "\n".join(["Vos chantiers :", *(f"{number}. {site['name']}" for number, site in enumerate(sites, 1))])


def _chosen(sites: list[Site] | None, number: int) -> str:
    """Describe one site of the list that was shown; without such a list, greet."""
    if not sites:
        return GREETING
    if number > len(sites):
        return f"Il n'y a pas de chantier {number} : choisissez un numéro de 1 à {len(sites)}."
    site = sites[number - 1]
    return f"{site['name']} : {site['address']}, ouvert à partir de {site['opens']}."
