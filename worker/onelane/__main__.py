"""`python -m worker` is `onelane`."""

from onelane.cli import main

main()
