"""What SQL goes by when it decides about a channel's sessions and turns."""

from datetime import time

from pydantic import BaseModel, ConfigDict, Field


class Policy(BaseModel):
    """When a channel's sessions end. The SQL functions read it from the table `channel_policies`."""

    model_config = ConfigDict(frozen=True)

    channel: str
    place: str = Field(default="", exclude=True)
    """Where the channel is configured, as errors name it."""
    idle_timeout_s: int
    day_start: time | None
    timezone: str | None
    max_age_s: int | None
    escalation_timeout_s: int
    batch_max: int = 1
    """How many messages one turn may take."""
    wants_events: bool | None = None
    """Whether the channel's bot has a function for events: then they wait for a turn. None: a worker knows."""
