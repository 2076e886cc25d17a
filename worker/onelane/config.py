"""Settings: read once from the environment, checked, frozen.

`Settings.from_environment()` is the only reader. An impossible value ends in a `ConfigError` of one line, which names
the setting and what is allowed; it never repeats the value, since many are secrets.
"""

import os
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from onelane.channel import Channel
from onelane.errors import ConfigError
from onelane.formats import (
    ChannelName,
    Days,
    DayStart,
    HandlerPath,
    LogLevel,
    PostgresUrl,
    RedisPrefix,
    RedisUrl,
    Seconds,
    TimeZone,
    WorkerKinds,
)
from onelane.operators import OpsName, OpsUser
from onelane.otel import Otel
from onelane.policy import Policy
from onelane.problems import setting_name, setting_problem
from onelane.sources import channels_in

__all__ = ["Channel", "Settings"]


class Settings(Otel, BaseSettings):
    """All settings, with their defaults. The environment variable has the field's name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: Annotated[PostgresUrl, Field(repr=False)]
    pg_pooler: Literal["transaction"] | None = None
    """That DATABASE_URL is a pooler's which lends a connection for one transaction only, as PgBouncer may."""
    redis_url: Annotated[RedisUrl, Field(repr=False)]
    redis_tls_verify: bool = True
    """False accepts a self-signed certificate, which some hosted Redis plans have."""
    redis_tls_ca_file: FilePath | None = None
    """The certificate authorities to trust on rediss://, as PEM; None: those of the system."""
    redis_prefix: RedisPrefix = ""
    """What stands in front of all keys in Redis, so that two deployments can share one."""
    redis_may_evict: bool = False
    """True lets workers go on while Redis' maxmemory-policy evicts keys."""
    channels: dict[ChannelName, Channel] = {}
    """From CHANNELS, from CHANNELS_FILE, and from a variable CHANNEL_<NAME> each; see `sources`."""
    channels_file: FilePath | None = None
    handler: HandlerPath = "onelane.handlers.echo:handle"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    log_level: LogLevel = "INFO"
    log_format: Literal["auto", "brief", "json", "text"] = "auto"
    development: bool = False
    """Opens what the internet must not see: GET /webhooks/<channel>/replies, and the page /try."""
    try_acts: tuple[Literal["kill-worker", "forget-redis"], ...] = ()
    """What the page /try may do to the service. `onelane run` allows it where it has started what is hurt."""
    try_problem_file: str = ""
    """Where `onelane run` writes why a changed bot does not run; the page /try shows it."""

    worker_kinds: WorkerKinds = ("in", "out")
    """What a worker process does: run turns (in), send replies (out), or both."""
    worker_slots: Annotated[int, Field(ge=1, le=10_000)] = 64
    db_pool_max: Annotated[int, Field(ge=1, le=64)] = 3
    redis_pool_max: Annotated[int, Field(ge=3, le=64)] = 3
    """Connections of a worker process, whatever its slots; see `worker/onelane/postgres/budget.py`."""
    lock_ttl_s: Annotated[float, Field(ge=1, le=600)] = 15
    stall_limit_s: Annotated[float, Field(ge=2, le=600)] = 15
    """A worker process that gets no CPU for so long, because a handler keeps the GIL, logs its stacks and ends."""
    loop_stall_limit_s: Annotated[float, Field(ge=0.5, le=600)] = 5
    """A worker process ends in which one call of an async handler blocks the event loop for so long."""
    turn_timeout_s: Annotated[float, Field(ge=0.1, le=86_400)] = 120
    commit_hold_s: Annotated[float, Field(ge=0, le=600)] = 60
    """How long what came of a turn or a step is kept in an outage of Postgres, before its handler runs again."""
    shutdown_grace_s: Annotated[float, Field(ge=0, le=600)] = 20
    quantum_turns: Annotated[int, Field(ge=1, le=10_000)] = 10
    quantum_s: Annotated[float, Field(gt=0, le=600)] = 2
    attempts_max: Annotated[int, Field(ge=1, le=100)] = 6
    retry_base_s: Annotated[float, Field(gt=0, le=3_600)] = 5
    retry_max_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    later_max_s: Annotated[float, Field(ge=0, le=604_800)] = 3_600
    """How long a message may wait for somebody else's service before its runs count as attempts."""
    fetch_max_bytes: Annotated[int, Field(ge=1_024, le=128 * 2**20)] = 25 * 2**20
    """The largest file of a user that `turn.fetch` gets."""
    fetch_timeout_s: Annotated[float, Field(ge=0.1, le=600)] = 20
    """How long that may take in all; never more than half of TURN_TIMEOUT_S."""
    send_slots: Annotated[int, Field(ge=1, le=1_000)] = 32
    """Users whose replies a worker process sends at once."""
    send_deadline_s: Annotated[float, Field(ge=1, le=120)] = 25
    """How long one request to a provider may take in all."""
    unknown_hold_s: Annotated[float, Field(ge=0, le=600)] = 15
    """How long a user's later replies wait for word of one that may have arrived."""
    send_give_up_s: Annotated[float, Field(ge=0, le=86_400)] = 3_600
    """After so long a reply that could not be sent has failed."""
    suspect_memory_mb: Annotated[int, Field(ge=64, le=65_536)] = 512

    session_idle_timeout_s: Seconds = 25_200
    session_day_start: DayStart | None = None
    session_timezone: TimeZone | None = None
    session_max_age_s: Seconds | None = None
    escalation_timeout_s: Seconds = 25_200
    backlog_max: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """Messages of one user that may wait."""
    backlog_total_max: Annotated[int, Field(ge=0, le=100_000_000)] = 1_000_000
    """Messages of all users that may wait; 0: any number."""

    web_concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    """Web processes of one dyno. Gunicorn reads it itself; here it counts their connections."""
    web_db_pool_max: Annotated[int, Field(ge=1, le=64)] = 2
    web_redis_pool_max: Annotated[int, Field(ge=1, le=64)] = 2
    body_max_bytes: Annotated[int, Field(ge=1_024, le=64 * 2**20)] = 3 * 2**20
    quarantine_max: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """Webhooks of one channel that are kept because they were not understood; more are refused."""
    quarantine_days: Annotated[int, Field(ge=1, le=3_650)] = 30
    """After so many days they are deleted."""
    retention_days: Days | None = None
    """After so many days an ended session is forgotten, with its messages; None: never."""
    proxy_hops: Annotated[int, Field(ge=0, le=8)] = 0
    """How many proxies in front of the web set X-Forwarded-*; 1 on Heroku-style routers."""

    ops_user: Annotated[str, Field(max_length=200)] = "operator"
    ops_password: Annotated[SecretStr, Field(max_length=1_000)] | None = None
    """The password of `ops_user`, who may do everything under /ops; None: there is no such operator."""
    ops_users: dict[OpsName, OpsUser] = {}
    """Several operators, each with a password's hash and a role. Without any operator there is no /ops."""
    secret_key: SecretStr | None = None
    """Changing it ends every operator's login."""

    say_secret: SecretStr | None = None
    """Opens POST /say/<channel> to those who sign with it; several, with spaces between them: each verifies."""

    metrics_token: SecretStr | None = None
    """Opens /metrics and /autoscale.json to those who send it; None: they exist in development only."""
    autoscale_workers_min: Annotated[int, Field(ge=0, le=1_000)] = 1
    autoscale_workers_max: Annotated[int, Field(ge=1, le=1_000)] = 8
    """The bounds of what /autoscale.json suggests; the connections that a plan allows set the upper one."""

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        for name, channel in self.channels.items():
            policy = self.policy(name, channel)
            if policy.day_start is not None and policy.timezone is None:
                raise ValueError(f"{policy.place}: day_start needs timezone, for example Europe/Paris")
        if self.ops_password is not None and self.ops_user in self.ops_users:
            raise ValueError("OPS_USERS: has the name of OPS_USER too: leave OPS_PASSWORD out")
        return self

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment, or raise a one-line ConfigError that names what is wrong."""
        if os.environ.get("RQ_KEY_PREFIX", "rq") != "rq":
            raise ConfigError("RQ_KEY_PREFIX: must not be set: the keys here are rq:…, behind REDIS_PREFIX")
        try:
            channels = {name: Channel.of(given) for name, given in channels_in(os.environ).items()}
            return cls(channels=channels)  # type: ignore[call-arg]  # the rest is the environment's
        except ValidationError as error:
            raise ConfigError(setting_problem(error)) from None
        except SettingsError as error:
            raise ConfigError(f"{setting_name(error)}: must be valid JSON, see .env.example") from None

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The session policy of each channel, defaults filled in."""
        return tuple(self.policy(name, channel) for name, channel in self.channels.items())

    @property
    def handlers(self) -> tuple[str, ...]:
        """The paths of all handlers that may run, each once."""
        return tuple(dict.fromkeys([self.handler, *map(self.handler_of, self.channels)]))

    def handler_of(self, channel: str) -> str:
        """Return the path of a channel's handler, also of one that is configured no more."""
        configured = self.channels.get(channel)
        return (configured and configured.handler) or self.handler

    def policy(self, name: str, channel: Channel) -> Policy:
        """Fill in what `channel` leaves to the settings."""
        return Policy(
            channel=name,
            place=channel.place(name),
            idle_timeout_s=channel.idle_timeout_s or self.session_idle_timeout_s,
            day_start=channel.day_start or self.session_day_start,
            timezone=channel.timezone or self.session_timezone,
            max_age_s=channel.max_age_s or self.session_max_age_s,
            escalation_timeout_s=channel.escalation_timeout_s or self.escalation_timeout_s,
            batch_max=channel.collect_max_messages if channel.on_busy in {"collect", "interrupt"} else 1,
        )
