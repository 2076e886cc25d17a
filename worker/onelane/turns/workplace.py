"""What every shift of a process works with."""

from dataclasses import dataclass, field
from threading import Event

from onelane.config import Settings
from onelane.lanes.lanes import Lanes
from onelane.turns.event_loop import EventLoop
from onelane.turns.handler_threads import HandlerThreads
from onelane.turns.handling import Handling
from onelane.turns.pacing import Outages
from onelane.turns.records import Records


@dataclass(frozen=True)
class Workplace:
    """The process's settings, lanes of both kinds, records and handler."""

    settings: Settings
    lanes: Lanes
    out_lanes: Lanes
    records: Records
    handling: Handling
    stopping: Event
    """Once set, a lane is handed on after the turn at hand."""
    loop: EventLoop
    """On which all shifts run."""
    threads: HandlerThreads = field(default_factory=HandlerThreads)
    """In which sync handlers run."""
    outages: Outages = field(default_factory=Outages)
