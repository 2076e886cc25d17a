"""The duties that workers take turns at: put back who waits in Postgres and not in Redis; end what is over.

Every few seconds one of the workers does a round, bounded in time; the others help it to put back. Nothing here is
needed for a worker's death: the lanes of the dead become due by themselves.
"""

import time
from collections.abc import Mapping, Sequence

from onelane.failures import Failures
from onelane.lanes.lanes import Lanes
from onelane.postgres.db import Database
from onelane.processes.alone import alone
from onelane.processes.expiry import Expiry
from onelane.processes.reconciler import LAP_EVERY_MAX_S, Reconciler
from onelane.processes.requeued import Requeued
from onelane.processes.retention import Retention
from onelane.sessions import Sessions

ROUND_S = 3.0
"""What is requeued right after a round is answered within five seconds all the same."""
SWEEP_MAX_S = 5.0
SWEEP_ROUNDS = 5
FORGET_ROUNDS = 20
"""What nobody waits for is done in every fifth or twentieth round: an idle worker asks little."""


class Duties:
    """One worker's share."""

    def __init__(
        self,
        database: Database,
        lanes: Sequence[Lanes],
        sessions: Sessions,
        failures: Failures,
        worker: str,
        *,
        parked_max_s: float,
        retention: Mapping[str, int] | None = None,
    ) -> None:
        """Take the lanes of all kinds, turns' first, whichever this worker works.

        No lane is made to wait for `parked_max_s`. `retention`: by channel, for how many days sessions are kept.
        """
        self._database = database
        self._marks, self._roster = lanes[0].marks, lanes[0].roster
        self._reconcilers = [Reconciler(database, of_kind, worker, parked_max_s) for of_kind in lanes]
        self._requeued = [Requeued(database, of_kind) for of_kind in lanes]
        self._failures = failures
        self._expiry = Expiry(database)
        self._retention = Retention(database, retention or {})
        self._sessions = sessions
        self._worker = worker
        self._rounds = 0

    def round(self) -> None:
        """Do the duties; those of them that another worker does this round are left to it. Each fails alone."""
        if self._database.breaker.is_open:
            return  # another worker may be able to
        claim = self._marks.claim_duty("duties", self._worker, ROUND_S * 0.9)
        if claim.dead:
            self.redrive_requeued()
        for reconciler, is_reconciled in zip(self._reconcilers, claim.are_reconciled(LAP_EVERY_MAX_S), strict=True):
            if not is_reconciled:
                alone("reconcile", reconciler.reconcile)
        if not claim.is_ours:
            return
        alone("tell_failures", self._failures.tell)
        if self._rounds % SWEEP_ROUNDS == 0:
            alone("sweep", self.sweep)
        if self._rounds % FORGET_ROUNDS == 0:
            alone("forget_deliveries", self.forget_deliveries)
            alone("forget_sessions", self._retention.forget)
            alone("forget_workers", self._roster.forget_dead)
        self._rounds += 1

    def sweep(self) -> int:
        """End sessions whose time is over, batch by batch; return how many."""
        ends, ended = time.monotonic() + SWEEP_MAX_S, 0
        while True:
            batch = self._sessions.sweep()
            ended += batch.ended
            if not batch.has_more or time.monotonic() > ends:
                return ended

    def forget_deliveries(self) -> None:
        """Forget what no provider delivers again, and what is kept no longer, in bounded batches."""
        self._expiry.forget()

    def redrive_requeued(self) -> int:
        """Let what somebody put back with RQ's own tools wait again; return how many."""
        return sum(alone("redrive", requeued.redrive) or 0 for requeued in self._requeued)
