"""`python -m worker` is `lanekeeper`."""

from worker.cli import main

main()
