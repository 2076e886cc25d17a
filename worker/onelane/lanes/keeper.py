"""Keeps a process's leases alive, whatever its handlers do to it: a helper process (`renewer.py`) renews them.

This side sends which leases are in use, beat by beat, and receives which are lost. The helper answers each beat; one
that died, or has answered nothing for half a lease's life, is replaced while its leases still live.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from onelane.errors import kind_of
from onelane.lanes import helper
from onelane.lanes.clock import note_step
from onelane.lanes.helper import Helper
from onelane.lanes.holding import Holding
from onelane.model import JsonObject, Lease
from onelane.periodic import Periodic
from onelane.telemetry.log import event
from onelane.telemetry.numbers import LEASES_LOST

BEATS_PER_LIFE: Final = 12
UNANSWERED_MAX: Final = 5
"""The next beat finds half a life of silence."""
REDIS_WAIT_OF_LIFE: Final = 5
"""The helper waits for Redis for less than its parent waits for the helper."""
REDIS_WAIT_MIN_S: Final = 0.5


class Keeper:
    """The leases of one process, of all kinds."""

    def __init__(
        self, worker: str, redis_access: JsonObject, ttl_s: float, stall_limit_s: float, database_id: str = ""
    ) -> None:
        """`redis_access` are the arguments of `scripts.connect`, as JSON has them; `database_id` tells whose lanes."""
        self._life_s = min(ttl_s, stall_limit_s)
        wait_s = min(redis_access["timeout_s"], max(REDIS_WAIT_MIN_S, self._life_s / REDIS_WAIT_OF_LIFE))
        self._settings = {
            "worker": worker,
            "redis": {**redis_access, "timeout_s": wait_s},
            "database_id": database_id,
            "ttl_s": ttl_s,
            "stall_limit_s": stall_limit_s,
        }
        self._holdings: dict[str, Holding] = {}
        """By token. Single operations on it are atomic, and whoever walks it takes a copy."""
        self._beats: Periodic
        self._helper: Helper
        """Only the beat's thread sends to it and replaces it."""
        self._is_without = False
        """Whether the last start of another helper has failed."""

    def start(self, on_beat: Callable[[], None] = lambda: None) -> None:
        """Begin to renew; `on_beat` is called whenever this side gets the CPU and the helper answers."""
        self._helper = self._new_helper()
        self._helper.has_begun.wait(helper.STARTS_S)  # one that a platform's SIGTERM met as it started never answers
        self._beats = Periodic("keeper", lambda: self._beat(on_beat), self._life_s / BEATS_PER_LIFE)
        self._beats.start()

    def stop(self) -> None:
        """Renew no more; leases still in use run out."""
        self._beats.stop(self._life_s)
        self._helper.end()

    def hold(self, leases: Iterable[Lease]) -> list[Holding]:
        """Keep `leases` alive until they are closed: the next beat sends them."""
        new = [Holding(lease) for lease in leases]
        self._holdings.update((holding.lease.token, holding) for holding in new)
        return new

    @property
    def holdings(self) -> list[Holding]:
        """The leases in use now: those that nobody has closed, and that were not lost."""
        return [holding for holding in list(self._holdings.values()) if holding.is_open]

    @property
    def can_renew(self) -> bool:
        """Whether a helper answers: a lease taken without one would run out in the middle of its turn."""
        return self._helper.can_answer and not self._is_silent

    def _beat(self, on_beat: Callable[[], None]) -> None:
        self._end_bad_helper()
        if self._helper.is_killed:
            self._start_another()
        self._helper.send(self._leases())
        if self.can_renew:
            on_beat()

    def _end_bad_helper(self) -> None:
        if self._helper.is_killed:
            return
        if self._helper.has_ended:
            event("renewer_died", exit_code=self._helper.process.returncode)
        elif self._helper.is_late or self._is_silent:
            event("renewer_silent", leases=len(self._holdings))
        else:
            return
        self._helper.kill()

    def _start_another(self) -> None:
        """Start the next helper; if the system gives none, the next beat tries again, and until then none answers."""
        try:
            self._helper = self._new_helper()
        except (OSError, RuntimeError) as error:
            if not self._is_without:
                event("renewer_not_started", leases=len(self._holdings), error=kind_of(error))
            self._is_without = True
        else:
            self._is_without = False

    @property
    def _is_silent(self) -> bool:
        return self._helper.answers.is_set() and self._helper.unanswered >= UNANSWERED_MAX

    def _new_helper(self) -> Helper:
        return Helper(self._settings, self._life_s / 4, self._receive)

    def _leases(self) -> dict[str, dict[str, str]]:
        """Return the user of each lease in use, by kind and token, and let go of those that are closed."""
        for token, holding in list(self._holdings.items()):
            if not holding.is_open:
                self._holdings.pop(token, None)
        leases: dict[str, dict[str, str]] = {}
        for token, holding in list(self._holdings.items()):
            leases.setdefault(holding.lease.kind, {})[token] = str(holding.lease.user_id)
        return leases

    def _receive(self, answer: Any) -> None:
        """Receive how renewals went."""
        match answer:
            case {"lost": list(lost)}:
                self._lose(set(lost))
            case {"stepped_ms": int(stepped_ms)}:
                note_step(stepped_ms)
            case {"failed": str(error)}:
                event("renewal_failed", leases=len(self._holdings), error=error)

    def _lose(self, tokens: set[str]) -> None:
        """Cancel the turns whose leases are another's, gone, or have run out."""
        for holding in self.holdings:
            if holding.lease.token in tokens and not holding.is_leaving:
                LEASES_LOST.count()
                event("lease_lost", user_id=holding.lease.user_id, fence=holding.lease.fence)
                self._holdings.pop(holding.lease.token, None)
                holding.cancel()
