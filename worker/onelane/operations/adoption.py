"""Making a Redis ours whose lanes another database had: after this one was replaced, or took that one's place."""

from onelane import keys
from onelane.errors import LanesForeign
from onelane.lanes.lanes import Lanes
from onelane.operations.audit import record
from onelane.operations.snapshot import Survey
from onelane.postgres.db import Database
from onelane.telemetry.log import event


class Adoption:
    """Looks at lanes whoever's they are, and makes them ours."""

    def __init__(self, lanes: Lanes) -> None:
        self._ours = lanes
        self._anybodys = [Lanes(lanes.client, kind) for kind in keys.KINDS]

    @property
    def is_needed(self) -> bool:
        """Whether the lanes are another database's."""
        try:
            self._ours.check_owner()
        except LanesForeign:
            return True
        return False

    def workers(self) -> list[str]:
        """Name the workers that are alive: another deployment's, since ours do not start."""
        return [worker.name for worker in Survey(self._anybodys[0]).snapshot().workers if worker.is_alive]

    def adopt(self, database: Database, *, by: str) -> None:
        """Make the lanes ours. Those of users whom Postgres does not know are taken off as they become due."""
        for lanes in self._anybodys:
            lanes.scripts.run("adopt", self._ours.scripts.owner.database_id())
        record(database, by, "redis_adopted", None)
        event("redis_adopted")
