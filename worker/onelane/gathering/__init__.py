"""Group commit: what many ask of a SQL function at once goes to Postgres in few lists.

`gatherer` has the threads, `grouping` decides what goes when, `requests` is what goes.
"""

from onelane.gathering.gatherer import Gatherer

__all__ = ["Gatherer"]
