"""What keeps people from using a page, as axe-core finds it."""

from typing import Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SERIOUS: Final = frozenset({"serious", "critical"})


def serious_faults(page: Page) -> list[str]:
    """List the serious faults of a page as it is shown now, in light and in dark."""
    found: list[str] = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for rule in Axe().run(page).response["violations"]:
            if rule["impact"] in SERIOUS:
                found += [f"{scheme}: {rule['id']}: {node['html']}" for node in rule["nodes"]]
    return found
