"""Every error that Lanekeeper raises on purpose.

LanekeeperError
├── ConfigError           a setting is missing, unknown or impossible: the process does not start
├── StoreUnavailable      Postgres cannot be reached or is restarting: try again later
├── LanesUnavailable      Redis cannot be reached: Postgres keeps the message, the reconciler enqueues it
├── BacklogFull           the user already has as many waiting messages as the channel allows
├── EmbeddedServerError   an embedded server did not start: the message says why
└── DeliveryError         a webhook that cannot be accepted; `status` is the HTTP answer
    ├── BadSignature      401
    ├── BadRequest        400, names the field
    └── Unsupported       415
"""

from typing import ClassVar


class LanekeeperError(Exception):
    """Anything Lanekeeper raises on purpose."""


class ConfigError(LanekeeperError):
    """A setting is missing, unknown or impossible; the text names it and says what is allowed."""


class StoreUnavailable(LanekeeperError):  # noqa: N818 - it names a state, and reads so where it is caught
    """Postgres cannot be reached, is restarting, or did not answer in time."""


class LanesUnavailable(LanekeeperError):  # noqa: N818 - as above
    """Redis cannot be reached or did not answer in time."""


class BacklogFull(LanekeeperError):  # noqa: N818 - as above
    """A user has as many waiting messages as allowed; nothing of the delivery was stored."""


class EmbeddedServerError(LanekeeperError):
    """An embedded PostgreSQL or Redis did not start."""


class DeliveryError(LanekeeperError):
    """A webhook that cannot be accepted. Its text is safe to send back: no secret, no content."""

    status: ClassVar[int] = 400


class BadSignature(DeliveryError):  # noqa: N818 - as above
    """The signature is missing, wrong or too old."""

    status = 401


class BadRequest(DeliveryError):  # noqa: N818 - as above
    """The body cannot be understood."""

    def __init__(self, field: str, problem: str) -> None:
        """Name the field and what is allowed there, never what was sent."""
        super().__init__(f"{field}: {problem}")
        self.field = field


class Unsupported(DeliveryError):  # noqa: N818 - as above
    """The content type is not the provider's."""

    status = 415
