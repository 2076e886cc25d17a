"""The incident of 17 January 2026, replayed: once against the flaws that explain it, once against Onelane.

docs/INCIDENT.md explains it. Both sides receive the same signed webhooks and run the same bot; only the way in which
they find the session differs.
"""

from collections.abc import Callable

from onelane.dev.incident import naive_bot, real
from onelane.dev.incident.account import Incident


def replay(report: Callable[[str], object]) -> Incident:
    """Replay the evening against both, and `report` what is being started.

    Raise OnelaneError when something does not start, KeyboardInterrupt when a signal came; either way everything
    that was started has ended, and its folder is gone.
    """
    return Incident(naive=naive_bot.replay(), real=real.replay(report))
