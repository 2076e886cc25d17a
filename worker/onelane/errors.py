"""Every error that Onelane raises on purpose, and how any error is described.

OnelaneError
├── ConfigError           a setting is missing, unknown or impossible: the process does not start
├── StoreUnavailable      Postgres did not do it, and may later: a lock, a time-out, a used-up pool
│   ├── Unanswered        it gave no answer in the call's own time (`postgres/faults.py`)
│   └── StoreAway         it is the whole server: it cannot be reached, stops, starts, is full or takes no writes
│       └── StoreDenied   it is there and refuses us: what DATABASE_URL says of certificates or passwords is wrong
├── StoreRefused          Postgres refuses what it was asked to store: the same again would fail again
├── LanesUnavailable      Redis cannot be reached: Postgres keeps the message, and its lane comes back with Redis
│   └── LanesDenied       only another setting mends it: certificate, password, rights, a cluster, an old server
│       └── LanesForeign  the lanes in it are another database's: another deployment uses this Redis
├── BacklogFull           the user already has as many waiting messages as the channel allows
├── InboxFull             as many messages of all users wait as may: nothing that waits is taken for now
├── LaneBusy              a turn of the user's does not end: an act that needs the lane is not done
├── NotRequeued           a job cannot be requeued: it is not a dead message, or waits already
├── EmbeddedServerError   an embedded server did not start; the message names the reason
├── IsolationBroken       no process can be started for a suspect message: it waits, and no attempt counts
│   └── NoThread          the system starts no thread, for that or for a sync handler
├── Later                 a handler asks to run later: what it needs is away
├── FileError             a user's file cannot be fetched: it is none of the provider's, or the provider refuses it
│   ├── FileGone          the provider has it no more
│   ├── FileTooLarge      it has more bytes than are fetched
│   └── FileAway          the provider is away, slow or busy: raised by a handler, no attempt counts
├── Unsendable            a channel has no form for what a reply says, or no way to its user; the text names the reason
├── HandlerFailed         a handler raised, died, took too long, or returned what cannot be stored
│   ├── BadResult         what it returned or saved cannot be stored; the message names the reason
│   ├── HandlerWaits      somebody else's service is away, or the handler asked for later: no attempt counts
│   └── TurnOutdated      it read when what its turn had read was no longer true: it runs again, and no attempt counts
└── DeliveryError         a webhook that cannot be accepted; `status` is the HTTP answer
    ├── BadSignature      401
    │   └── BadHandshake  403
    ├── BadRequest        400, names the field
    └── Unsupported       415
"""

import traceback
from math import isfinite
from threading import Event
from typing import ClassVar

from onelane.storable import storable

EXIT_CONFIG = 78
"""The exit code of a process that a ConfigError ends: starting it again changes nothing."""
FRAMES_MAX = 20
REASON_MAX = 200


class OnelaneError(Exception):
    """Anything Onelane raises on purpose."""


class ConfigError(OnelaneError):
    """A setting is missing, unknown or impossible; the text names it and what is allowed."""


class StoreUnavailable(OnelaneError):  # noqa: N818 - it names a state, and reads so where it is caught
    """Postgres did not do what it was asked, and may do it later; `sqlstate` says why, if it was asked at all."""

    def __init__(self, text: str = "", sqlstate: str | None = None) -> None:
        """Take a text that quotes nobody."""
        super().__init__(text)
        self.sqlstate = sqlstate


class StoreAway(StoreUnavailable):
    """Postgres cannot be reached, is restarting, is full, or takes no writes: it would do nothing else either."""


class StoreDenied(StoreAway):
    """Postgres refuses who we are, or we refuse who it is: waiting does not help, DATABASE_URL is wrong."""


class StoreRefused(OnelaneError):  # noqa: N818 - as above
    """Postgres refuses what it was asked to store; `sqlstate` says why."""

    def __init__(self, sqlstate: str) -> None:
        """Keep the state; Postgres' own text may quote a message."""
        super().__init__(f"Postgres refuses it: {sqlstate}")
        self.sqlstate = sqlstate


class LanesUnavailable(OnelaneError):  # noqa: N818 - as above
    """Redis cannot be reached, did not answer in time, or refuses."""


class LanesDenied(LanesUnavailable):
    """Redis refuses us or what we ask, or we refuse it: waiting does not help; the text names what does."""


class LanesForeign(LanesDenied):
    """Another deployment uses this Redis, under the same prefix: nothing of its lanes was read or changed."""

    def __init__(self) -> None:
        """Word what to do."""
        super().__init__(
            "this Redis has the lanes of another database: set REDIS_PREFIX, or another REDIS_URL; "
            "if this database was restored or replaced: onelane doctor --adopt-redis"
        )


class BacklogFull(OnelaneError):  # noqa: N818 - as above
    """A user has as many waiting messages as allowed: of a webhook with several, the others' stand."""


class InboxFull(OnelaneError):  # noqa: N818 - as above
    """As many messages wait, of all users together, as may."""


class LaneBusy(OnelaneError):  # noqa: N818 - as above
    """A worker has the lane for longer than an act waits for it."""


class NotRequeued(OnelaneError):  # noqa: N818 - as above
    """The job is not a dead message, or was requeued already."""


class EmbeddedServerError(OnelaneError):
    """An embedded PostgreSQL or Redis did not start."""


class IsolationBroken(OnelaneError):  # noqa: N818 - as above
    """No process for a suspect message can be started, or it ends before it has come to the message."""


class NoThread(IsolationBroken):
    """The system starts no thread."""

    def __init__(self) -> None:
        """Word it."""
        super().__init__("the system starts no thread")


class Later(OnelaneError):  # noqa: N818 - it reads so where a handler raises it
    """Raise it in a handler to run again in `seconds`, without a failed attempt: what the handler needs is away.

    `reason` is for the operator, in a few words: it is stored and shown, so it quotes no user.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        """Take a time from now on; a reason is shortened to what fits a line."""
        if not isinstance(seconds, int | float) or not isfinite(seconds) or seconds < 0:
            raise ValueError("Later takes a number of seconds, 0 or more")
        if not isinstance(reason, str):
            raise TypeError("Later takes a reason of type str")
        self.seconds = seconds
        self.reason = storable(reason[:REASON_MAX])
        super().__init__(self.reason)


class FileError(OnelaneError):
    """A user's file cannot be fetched. The text names the reason, and no address."""


class FileGone(FileError):  # noqa: N818 - as above
    """The provider has it no more: most keep files for some days."""


class FileTooLarge(FileError):  # noqa: N818 - as above
    """It has more bytes than FETCH_MAX_BYTES."""


class FileAway(FileError):  # noqa: N818 - as above
    """The provider is away, slow or busy: somebody else's service, so a handler may let it pass."""


class HandlerFailed(OnelaneError):  # noqa: N818 - as above
    """A handler raised, died or took too long. The text names the place, and quotes no message."""


class BadResult(HandlerFailed):
    """A handler returned or saved something that cannot be stored."""


class HandlerWaits(HandlerFailed):
    """What a handler needs is away: its message waits, and loses no attempt."""

    def __init__(self, failure: str, seconds: float | None = None, reason: str = "") -> None:
        """Take the place and kind, and for how long and why the handler itself asked to wait."""
        super().__init__(failure)
        self.seconds = seconds
        self.reason = reason


class TurnOutdated(HandlerFailed):
    """What the turn read has changed since: raised at its next read. Postgres will refuse its commit as its failure."""


class DeliveryError(OnelaneError):
    """A webhook that cannot be accepted. Its text is safe to send back: no secret, no content."""

    status: ClassVar[int] = 400


class BadSignature(DeliveryError):  # noqa: N818 - as above
    """The signature is missing, wrong or too old."""

    status = 401

    def __init__(self, answer: str, why: str) -> None:
        """Take what the sender is told, and what the log tells the operator: no header, no content."""
        super().__init__(answer)
        self.why = why


class BadHandshake(BadSignature):
    """Whoever asks to verify the address does not know what was agreed."""

    status = 403


class BadRequest(DeliveryError):  # noqa: N818 - as above
    """The body cannot be understood."""

    def __init__(self, field: str, problem: str) -> None:
        """Name the field and what is allowed there, never what was sent."""
        super().__init__(f"{field}: {problem}")
        self.field = field


class Unsupported(DeliveryError):  # noqa: N818 - as above
    """The content type is not the provider's."""

    status = 415


shown_texts = Event()
"""Set in development: descriptions have the texts of all errors then, and may quote the user."""


def describe(error: BaseException) -> str:
    """Describe where an error arose and of which kind. Only our own texts are told: others' may quote the user."""
    frames = traceback.StackSummary.from_list(traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]).format()
    is_ours = isinstance(error, OnelaneError) and not isinstance(error, Later)  # a Later's reason is the handler's
    said = f"{kind_of(error)}: {error}".removesuffix(": ") if shown_texts.is_set() or is_ours else kind_of(error)
    return storable(f"Traceback (most recent call last):\n{''.join(frames)}{said}")


def reason_of(error: BaseException) -> str:
    """Return the text of an error of ours, which quotes nobody, and the kind of any other."""
    return str(error) if isinstance(error, OnelaneError) else kind_of(error)


def kind_of(error: BaseException) -> str:
    """Name an error's class, with its module unless it is Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
