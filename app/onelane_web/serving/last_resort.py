"""The end of a process that does not end by itself: it needs neither Python's lock nor a thread of ours.

It writes where all threads are, and ends the process at once, with exit code 1.
"""

import faulthandler
from typing import Final

STDERR_FD: Final = 2


def end_within(seconds: float | None) -> None:
    """End this process in so many seconds, whatever it does then; None: not any more."""
    if seconds is None:
        faulthandler.cancel_dump_traceback_later()
    else:
        faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR_FD)


def name_threads_on_abort() -> None:
    """Write where all threads are when SIGABRT comes, also while Python runs no handler; its handler is next."""
    faulthandler.enable(file=STDERR_FD)
