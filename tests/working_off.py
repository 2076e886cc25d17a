"""Turns without a worker process: the lanes that are due are leased and worked off in this thread.

For what is about turns. It has no keeper, no slots and no duties: who is about those runs a worker.
"""

import time
from itertools import count
from threading import Event
from uuid import uuid4

from onelane.bootstrap import Services
from onelane.bot import Handler
from onelane.channels.senders import Senders
from onelane.config import Settings
from onelane.lanes.holding import Holding
from onelane.sessions import publish_policies
from onelane.turns.bots import Bot, Bots
from onelane.turns.event_loop import WorkLoop
from onelane.turns.files import Files
from onelane.turns.handling import Handling
from onelane.turns.hosting import Host
from onelane.turns.isolation import Isolation
from onelane.turns.loading import load_bots
from onelane.turns.records import Records
from onelane.turns.shift import Shift
from onelane.turns.uploads import Uploads
from onelane.turns.workplace import Workplace
from tests.conftest import DEADLINE_S

LANES_AT_ONCE = 16
TTL_S = 60


def work_off(
    services: Services, settings: Settings, handler: Handler | Bot | None = None, *, patience_s: float = DEADLINE_S
) -> None:
    """Run everything that waits, also what is parked for a moment, until no lane is due within `patience_s`."""
    publish_policies(services.database, settings.policies)
    workplace = _workplace(services, settings, handler)
    ends = time.monotonic() + DEADLINE_S
    worker = f"by hand {uuid4()}"
    for call in count():
        leased = services.lanes.lease(worker, call, LANES_AT_ONCE, TTL_S)
        for lease in leased.leases:
            workplace.loop.run(Shift(Holding(lease), workplace).run()).result()
        if not leased.leases and (leased.next_due_s is None or leased.next_due_s > patience_s):
            return
        assert time.monotonic() < ends, "the lanes do not come to an end"
        if not leased.leases and leased.next_due_s is not None:
            Event().wait(leased.next_due_s)


def _workplace(services: Services, settings: Settings, handler: Handler | Bot | None) -> Workplace:
    loop = WorkLoop()
    host = Host(settings.turn_timeout_s, loop.clock)
    bots = Bots(handler if isinstance(handler, Bot) else Bot(handler)) if handler else load_bots(settings)
    stopping = Event()
    files, senders = Files(settings, services.providers), Senders(services.providers)
    records = Records(settings, services.database, stopping, senders.apologies(settings.channels))
    uploads = Uploads(services.database)
    handling = Handling(settings, services.sessions, bots, host, Isolation(settings), files, senders, uploads)
    return Workplace(settings, services.lanes, services.out_lanes, records, handling, stopping, loop)
