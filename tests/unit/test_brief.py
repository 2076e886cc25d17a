"""What the author of a bot reads: a line for each turn, what is wrong, and the bot's own words."""

import subprocess
import sys
from typing import Final

PROGRAM: Final = """
import logging
from onelane.telemetry.log import configure, event
configure("INFO", "brief", is_development=True)
ids = {"user_id": "aaaaaa111111", "session_id": "bbbbbb222222", "message_id": "m", "fence": 1}
event("delivery_accepted", channel="demo", message_id="m", user_id="u", seq=7)
event("turn_ended", outcome="committed", turn_ms=12.3, seq=7, **ids)
event("turn_failed", outcome="retry", attempts=1, failure="Traceback\\n  line\\nValueError: why", seq=8, **ids)
logging.getLogger("mybot").info("own words")
logging.getLogger("gunicorn.error").info("Booting worker")
"""


def test_turns_are_a_line_each_and_other_information_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    turn, failed, *below, own = done.stderr.splitlines()
    assert turn[8:] == "  user 111111  session 222222  message 7  12 ms  committed"
    assert "turn_failed" in failed
    assert "".join(below).endswith("ValueError: why")
    assert "own words" in own
    assert "\033[" not in done.stderr, "colours may go into a file"
