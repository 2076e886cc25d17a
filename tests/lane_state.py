"""What Redis holds of a user's lane, and what RQ's tools see of it."""

from uuid import UUID

from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.bootstrap import Services


def is_leased(services: Services, user_id: UUID) -> bool:
    """Whether somebody holds the lane, or has died holding it."""
    return bool(services.lanes.client.exists(keys.lock(user_id)))


def due_ms(services: Services, user_id: UUID) -> float:
    """Return when the lane is due, in ms since the epoch: infinity while it is paused. It must have work."""
    [score] = services.lanes.scores([user_id])
    assert score is not None
    return score


def now_ms(services: Services) -> float:
    """Return the time of Redis, in ms since the epoch."""
    seconds, microseconds = services.lanes.client.time()
    return seconds * 1000 + microseconds / 1000


def cached_session(services: Services, user_id: UUID) -> str | None:
    """Return the session id that Redis keeps for the user's next turn."""
    value = services.lanes.client.get(keys.session(user_id))
    return value.decode() if isinstance(value, bytes) else value


def failed_jobs(services: Services, user_id: UUID) -> FailedJobRegistry:
    """Return the registry of the user's dead messages, as RQ's tools read it."""
    return FailedJobRegistry(keys.queue_name(user_id), connection=services.lanes.client, serializer=JSONSerializer)
