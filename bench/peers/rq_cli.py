"""The command `rq`, with the jobs' module imported before it forks, as RQ's documentation advises: faster by far."""

import sys

from rq.cli import main

from bench.peers import rq_turns  # noqa: F401 - this import is the point

if __name__ == "__main__":
    sys.exit(main())
