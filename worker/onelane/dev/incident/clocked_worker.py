"""The worker of a replay, whose clock stands at the end of that evening.

Turns take their times from their messages; only the sweep reads the clock. With the real time it would end the session
of that evening at once.
"""

import os
import signal

from onelane.bootstrap import open_worker
from onelane.config import Settings
from onelane.dev.incident.timeline import CHOSEN
from onelane.telemetry import log as telemetry


def main() -> None:
    """Work lanes until SIGTERM."""
    settings = Settings.from_environment()
    telemetry.configure(settings.log_level, settings.log_format)
    runner = open_worker(settings, now=lambda: CHOSEN.at)
    signal.signal(signal.SIGTERM, runner.stop)
    # As in `onelane worker`: what is left are idle threads.
    os._exit(runner.run())


if __name__ == "__main__":
    main()
