"""The worker of a replay: `python -m worker.incident.clocked_worker`, for which it is always the end of that evening.

Turns take their times from their messages; only the sweep, which ends what is over, asks for the time at hand, and
would end a session of that evening at once.
"""

import os
import signal

from worker import telemetry
from worker.bootstrap import open_runner
from worker.config import Settings
from worker.incident.timeline import CHOSEN


def main() -> None:
    """Work lanes until SIGTERM."""
    settings = Settings.from_environment()
    telemetry.configure(settings.log_level, settings.log_format)
    runner = open_runner(settings, now=lambda: CHOSEN.at)
    signal.signal(signal.SIGTERM, runner.stop)
    # As in `lanekeeper worker`: what is left are idle threads.
    os._exit(runner.run())


if __name__ == "__main__":
    main()
