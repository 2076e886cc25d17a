"""One configured channel, whatever its provider, and where its operator configured it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, Secret, ValidationError

from onelane.errors import ConfigError
from onelane.formats import Days, DayStart, HandlerPath, PublicUrl, Seconds, TimeZone
from onelane.problems import first_problem
from onelane.sources import Given


class Channel(BaseModel):
    """One configured webhook source, named in the URL. What is None falls back to the settings.

    Fields that are not listed here are its provider's own settings, secrets among them: `channels` checks them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Secret[Any]]

    provider: str
    public_url: PublicUrl | None = None
    """Scheme, host and path prefix under which the provider reaches this service; some sign it."""

    idle_timeout_s: Seconds | None = None
    day_start: DayStart | None = None
    timezone: TimeZone | None = None
    max_age_s: Seconds | None = None
    escalation_timeout_s: Seconds | None = None
    end_words: tuple[str, ...] = ("/new",)
    """A message that is exactly one of these (in any case) ends the session."""
    end_reply: str | None = None

    on_busy: Literal["queue", "collect", "interrupt", "reject"] = "queue"
    """What becomes of messages that come while others are answered: each a turn, all one, one with it, or none."""
    busy_reply: str | None = None
    """What `reject` says, once until the user is answered."""
    collect_quiet_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    collect_max_s: Annotated[float, Field(ge=0.1, le=300)] = 8.0
    """Under `collect` a turn of an idle user begins so long after his last message, or after his first."""
    collect_max_messages: Annotated[int, Field(ge=1, le=100)] = 20
    collect_text_waits: bool = True
    """False: a text without files ends the wait."""
    interrupt_max: Annotated[int, Field(ge=1, le=100)] = 3
    """How often in a row a turn is thrown away: who writes all the time is answered all the same."""

    poison: Literal["skip", "park", "apologise"] = "skip"
    apology: str = "Sorry, that message could not be handled."
    backlog_max: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    rate_per_minute: Annotated[int, Field(ge=1, le=60_000)] | None = None

    retention_days: Days | None = None
    handler: HandlerPath | None = None
    """The channel's own bot."""
    on_unknown: Literal["ask", "resend", "leave"] | None = None
    """What becomes of a reply of which nobody knows whether it arrived; None: what suits the provider."""
    presence: Literal["none", "seen", "typing"] | None = None
    """What a user sees while the bot works on a message; None: `typing`, where the provider has such."""
    normalize_sender: HandlerPath | None = None
    """A function of one identifier that returns how to spell it, for numbers that come in two spellings."""
    on_echo: Literal["escalate", "note"] = "escalate"
    """What happens when a colleague writes from the provider's own app: he has taken over, or it is only noted."""

    _place: str = PrivateAttr("")

    def __init__(self, **values: Any) -> None:
        """Take the fields above and, by their names, the provider's own."""
        super().__init__(**values)

    @classmethod
    def of(cls, given: Given) -> Self:
        """Check what an operator wrote; a ConfigError names the place."""
        try:
            channel = cls.model_validate(given.value)
        except ValidationError as error:
            problem = first_problem(error)
            raise ConfigError(str(problem._replace(path=(given.place, *problem.path)))) from None
        channel._place = given.place  # noqa: SLF001 - it is ours
        return channel

    def place(self, name: str) -> str:
        """Return where the channel `name` is configured, as errors name it."""
        return self._place or f"CHANNELS.{name}"

    @property
    def own(self) -> dict[str, Any]:
        """The provider's own settings, as they were given."""
        return {name: value.get_secret_value() for name, value in (self.__pydantic_extra__ or {}).items()}
