"""Settings: read once from the environment, checked, frozen.

`Settings.from_environment()` is the only reader. An impossible value ends in one `ConfigError` line that names the
setting and says what is allowed; values themselves are never repeated, since many are secrets.
"""

from datetime import time
from functools import cached_property
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from onelane.errors import ConfigError

CHANNEL_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
HANDLER_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
PUBLIC_URL = r"^https?://[^\s?#]+$"

PATTERNS = {
    CHANNEL_NAME: "a channel's name must be lower-case letters, digits, _ and -, at most 63",
    HANDLER_PATH: "must be module:function, for example mybot:handle",
    PUBLIC_URL: "must be http:// or https:// with host and path, without ? and #",
}
PLAIN_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown, see .env.example",
    "tuple_type": "must be a JSON list",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "too_short": "must not be empty",
    "too_long": "has too many entries",
}
"""What pydantic says in terms of Python, in terms of a setting."""


def _postgres_scheme(url: str) -> str:
    """Accept the `postgres://` of hosting platforms."""
    url = url.replace("postgres://", "postgresql://", 1)
    if not url.startswith("postgresql://"):
        raise ValueError("must start with postgresql:// or postgres://")
    return url


def _redis_scheme(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    return url


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be a time zone of the IANA database, for example Europe/Paris") from error
    return name


def _whole_minute(value: object) -> object:
    """Read `HH:MM`; a day that starts at 06:00:07 is a mistake."""
    if isinstance(value, str):
        try:
            value = time.fromisoformat(value)
        except ValueError as error:
            raise ValueError("must be a time of day, for example 06:00") from error
    if value is not None and not isinstance(value, time):
        raise ValueError("must be a time of day, for example 06:00")
    if isinstance(value, time) and (value.second or value.microsecond or value.tzinfo):
        raise ValueError("must be a time of day in whole minutes, for example 06:00")
    return value


PostgresUrl = Annotated[str, AfterValidator(_postgres_scheme)]
RedisUrl = Annotated[str, AfterValidator(_redis_scheme)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
DayStart = Annotated[time, BeforeValidator(_whole_minute)]
Seconds = Annotated[int, Field(ge=1, le=366 * 86_400)]


class Channel(BaseModel):
    """One configured webhook source, named in the URL. What is None falls back to the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["standard", "twilio"]
    secrets: Annotated[tuple[SecretStr, ...], Field(min_length=1, max_length=8)]
    """Signing secrets, newest first: all of them verify, so that one can be rotated."""
    public_url: Annotated[str, Field(pattern=PUBLIC_URL)] | None = None
    """Scheme, host and path prefix under which the provider reaches this service; some sign it."""

    idle_timeout_s: Seconds | None = None
    day_start: DayStart | None = None
    timezone: TimeZone | None = None
    max_age_s: Seconds | None = None
    escalation_timeout_s: Seconds | None = None
    end_words: tuple[str, ...] = ("/new",)
    """A message that is exactly one of these (whatever its case) ends the session."""
    end_reply: str | None = None

    poison: Literal["skip", "park", "apologise"] = "skip"
    apology: str = "Sorry, that message could not be handled."
    backlog_max: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    rate_per_minute: Annotated[int, Field(ge=1, le=60_000)] | None = None


class Settings(BaseSettings):
    """Everything that can be set, with its default. The field's name in capitals is the variable's."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: Annotated[PostgresUrl, Field(repr=False)]
    redis_url: Annotated[RedisUrl, Field(repr=False)]
    redis_tls_verify: bool = True
    """False accepts a self-signed certificate, which some hosted Redis plans have."""
    redis_tls_ca_file: FilePath | None = None
    """Whom to trust on rediss://, as PEM; without it those whom the system trusts."""
    channels: dict[Annotated[str, Field(pattern=CHANNEL_NAME)], Channel] = {}
    handler: Annotated[str, Field(pattern=HANDLER_PATH)] = "onelane.handlers.echo:handle"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "text"] = "auto"
    development: bool = False
    """Opens what must stay closed on the internet: GET /webhooks/<channel>/replies."""

    worker_slots: Annotated[int, Field(ge=1, le=1_000)] = 16
    db_pool_max: Annotated[int, Field(ge=1, le=64)] = 3
    redis_pool_max: Annotated[int, Field(ge=3, le=64)] = 3
    """Connections of a worker process, whatever its slots; see `worker/onelane/budget.py`."""
    lock_ttl_s: Annotated[float, Field(ge=1, le=600)] = 15
    stall_limit_s: Annotated[float, Field(ge=2, le=600)] = 15
    """A worker process that gets no CPU for so long, because a handler keeps the GIL, ends itself with its stacks."""
    turn_timeout_s: Annotated[float, Field(ge=0.1, le=86_400)] = 120
    shutdown_grace_s: Annotated[float, Field(ge=0, le=600)] = 20
    quantum_turns: Annotated[int, Field(ge=1, le=10_000)] = 10
    quantum_s: Annotated[float, Field(gt=0, le=600)] = 2
    attempts_max: Annotated[int, Field(ge=1, le=100)] = 5
    retry_base_s: Annotated[float, Field(gt=0, le=3_600)] = 1
    retry_max_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    suspect_memory_mb: Annotated[int, Field(ge=64, le=65_536)] = 512

    session_idle_timeout_s: Seconds = 25_200
    session_day_start: DayStart | None = None
    session_timezone: TimeZone | None = None
    session_max_age_s: Seconds | None = None
    escalation_timeout_s: Seconds = 25_200
    backlog_max: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000

    web_concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    """Web processes of one dyno. Gunicorn reads it itself; here it counts their connections."""
    web_db_pool_max: Annotated[int, Field(ge=1, le=64)] = 2
    web_redis_pool_max: Annotated[int, Field(ge=1, le=64)] = 2
    body_max_bytes: Annotated[int, Field(ge=1_024, le=64 * 2**20)] = 3 * 2**20
    proxy_hops: Annotated[int, Field(ge=0, le=8)] = 0
    """Proxies in front of the web that set X-Forwarded-*; 1 on Heroku-style routers."""

    ops_user: Annotated[str, Field(max_length=200)] = "operator"
    ops_password: Annotated[SecretStr, Field(max_length=1_000)] | None = None
    """Opens the operator's pages under /ops; without one there are none."""
    secret_key: SecretStr | None = None
    """Helps sign the operator's cookie; changing it, as changing the password, ends every login."""

    metrics_token: SecretStr | None = None
    """Opens /metrics and /autoscale.json to those who send it; without one they are open in development only."""
    autoscale_workers_min: Annotated[int, Field(ge=0, le=1_000)] = 1
    autoscale_workers_max: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Between these /autoscale.json suggests; a plan's connections set the upper one."""

    @model_validator(mode="after")
    def _day_start_has_a_time_zone(self) -> Self:
        for name, channel in self.channels.items():
            policy = self.policy(name, channel)
            if policy.day_start is not None and policy.timezone is None:
                raise ValueError(f"CHANNELS.{name}: day_start needs timezone, for example Europe/Paris")
        return self

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment, or raise a one-line ConfigError that names what is wrong."""
        try:
            return cls()  # type: ignore[call-arg]  # the environment is the argument
        except ValidationError as error:
            raise ConfigError(_first_problem(error)) from None
        except SettingsError as error:
            raise ConfigError(f"{_named_field(error)}: must be valid JSON, see .env.example") from None

    @cached_property
    def policies(self) -> tuple["Policy", ...]:
        """The session policy of each channel, defaults filled in."""
        return tuple(self.policy(name, channel) for name, channel in self.channels.items())

    def policy(self, name: str, channel: Channel) -> "Policy":
        """Fill in what `channel` leaves to the settings."""
        return Policy(
            channel=name,
            idle_timeout_s=channel.idle_timeout_s or self.session_idle_timeout_s,
            day_start=channel.day_start or self.session_day_start,
            timezone=channel.timezone or self.session_timezone,
            max_age_s=channel.max_age_s or self.session_max_age_s,
            escalation_timeout_s=channel.escalation_timeout_s or self.escalation_timeout_s,
        )


class Policy(BaseModel):
    """When a channel's sessions end. The SQL functions read it from the table `channel_policies`."""

    model_config = ConfigDict(frozen=True)

    channel: str
    idle_timeout_s: int
    day_start: time | None
    timezone: str | None
    max_age_s: int | None
    escalation_timeout_s: int


def _first_problem(error: ValidationError) -> str:
    """Word the first problem in one line, without repeating any value."""
    problem = error.errors(include_url=False, include_input=False)[0]
    # A name that is none of ours may be a secret in the wrong place: `[key]` is pydantic's word for that.
    loc = problem["loc"][:-2] if problem["loc"][-1:] == ("[key]",) else problem["loc"]
    field, *rest = [str(part) for part in loc] or [""]
    message = (
        PATTERNS.get(problem.get("ctx", {}).get("pattern", ""))
        or PLAIN_WORDS.get(problem["type"])
        or problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    )
    if problem["type"] == "missing" and not rest:
        message += "; see .env.example, or `make run` for embedded servers"
    path = ".".join([field.upper(), *rest])
    return " ".join(f"{path}: {message}".removeprefix(": ").split())


def _named_field(error: SettingsError) -> str:
    """Find the field's name in pydantic-settings' message: `error parsing value for field "x" from …`."""
    parts = str(error).split('"')
    return parts[1].upper() if len(parts) > 1 else "a setting"
