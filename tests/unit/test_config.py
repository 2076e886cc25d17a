"""Settings: what is wrong is said in one line that names it, and .env.example tells the truth."""

import json
import shlex
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from onelane.config import Settings
from onelane.errors import ConfigError
from onelane.formats import database_of, redis_of
from onelane.sentinels import Sentinels, sentinels_of
from tests.payloads import ON_THE_NET

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SECRET = "hunter2"
REQUIRED = {"DATABASE_URL": f"postgres://u:{SECRET}@db/d", "REDIS_URL": f"rediss://:{SECRET}@lanes:6379"}
DEMO = {"provider": "standard", "secrets": [SECRET]}


@pytest.fixture(autouse=True)
def _nothing_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def example() -> dict[str, str]:
    lines = (line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#"))
    return {name: "".join(shlex.split(value)) for name, value in (line.split("=", 1) for line in lines)}


def with_channel(**changes: Any) -> str:
    return json.dumps({"demo": {**DEMO, **changes}})


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"^{name}: is missing; see \.env\.example, or `onelane run`"):
        Settings.from_environment()


IMPOSSIBLE = [
    ("DATABASE_URL", f"mysql://u:{SECRET}@db/d", "DATABASE_URL: must start with postgresql://"),
    ("DATABASE_URL", f"postgres://u:{SECRET}@db/d?sslmod=require", "DATABASE_URL: has a parameter that PostgreSQL's"),
    ("DATABASE_URL", f"postgres://u:{SECRET}@db/d?pgbouncer=true", "DATABASE_URL: has pgbouncer=true: leave that out"),
    ("PG_POOLER", "session", "PG_POOLER: must be 'transaction'"),
    ("DATABASE_URL", f"postgres://u:{SECRET}@db:{SECRET}/d?x", "DATABASE_URL: must be an address"),
    ("REDIS_URL", f"http://:{SECRET}@lanes", "REDIS_URL: must start with redis://"),
    ("REDIS_URL", f"redis+sentinel://:{SECRET}@lanes:1", "REDIS_URL: must be redis+sentinel://user:password@host"),
    ("REDIS_URL", f"redis+sentinel://lanes,/{SECRET}", "REDIS_URL: must be redis+sentinel://"),
    ("REDIS_URL", f"redis+sentinel://lanes/name?password={SECRET}", "REDIS_URL: must be redis+sentinel://"),
    ("PORT", SECRET, "PORT: must be a whole number"),
    ("PORT", "65536", "PORT: must be less than or equal to 65535"),
    ("WORKER_KINDS", "in,both", "WORKER_KINDS.1: must be 'in' or 'out'"),
    ("WORKER_SLOTS", "0", "WORKER_SLOTS: must be greater than or equal to 1"),
    ("LOCK_TTL_S", "nan", "LOCK_TTL_S: must be"),
    ("QUANTUM_S", "inf", "QUANTUM_S: must be less than or equal to 600"),
    ("RETRY_BASE_S", SECRET, "RETRY_BASE_S: must be a number"),
    ("HANDLER", SECRET, "HANDLER: must be module:function"),
    ("LOG_LEVEL", "loud", "LOG_LEVEL: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ("DEVELOPMENT", "perhaps", "DEVELOPMENT: must be true or false"),
    ("SESSION_DAY_START", "25:00", "SESSION_DAY_START: must be a time of day, for example 06:00"),
    ("SESSION_DAY_START", "06:00:07", "SESSION_DAY_START: must be a time of day in whole minutes"),
    ("SESSION_TIMEZONE", "Mars/Olympus", "SESSION_TIMEZONE: must be a time zone of the IANA database"),
    ("CHANNELS", "{" + SECRET, "CHANNELS: must be valid JSON"),
    ("CHANNELS", "[]", "CHANNELS: must be a JSON object"),
    ("CHANNELS", f'{{"demo": "{SECRET}"}}', "CHANNELS.demo: must be a JSON object"),
    ("CHANNELS", '{"demo": {}}', "CHANNELS.demo.provider: is missing"),
    ("CHANNELS", json.dumps({f"whsec_{SECRET}\n": DEMO}), "CHANNELS: a channel's name must be lower-case letters"),
    ("CHANNELS", with_channel(public_url=f"ftp://{SECRET}"), "CHANNELS.demo.public_url: must be http:// or https://"),
    ("CHANNELS", with_channel(max_age_s=0), "CHANNELS.demo.max_age_s: must be greater than or equal to 1"),
    ("CHANNELS", with_channel(day_start=6), "CHANNELS.demo.day_start: must be a time of day"),
    ("CHANNELS", with_channel(day_start="06:00"), "CHANNELS.demo: day_start needs timezone"),
]


@pytest.mark.parametrize(("name", "value", "said"), IMPOSSIBLE)
def test_an_impossible_value_is_named_in_one_line_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment()
    line = str(caught.value)
    assert line.startswith(said)
    assert "\n" not in line
    assert SECRET not in line
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_day_start_for_all_channels_needs_a_time_zone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNELS", json.dumps({"demo": DEMO}))
    monkeypatch.setenv("SESSION_DAY_START", "06:00")
    with pytest.raises(ConfigError, match=r"^CHANNELS\.demo: day_start needs timezone"):
        Settings.from_environment()
    monkeypatch.setenv("SESSION_TIMEZONE", "Europe/Paris")
    assert Settings.from_environment().policies[0].day_start == time(6)


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNELS", json.dumps({"demo": DEMO}))
    shown = Settings.from_environment()
    assert SECRET not in repr(shown.channels)
    assert SECRET not in str(shown.channels["demo"].model_dump())
    assert shown.channels["demo"].own == {"secrets": [SECRET]}


def test_a_log_level_may_be_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert Settings.from_environment().log_level == "DEBUG"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.from_environment().port = 1


def test_the_address_of_hosting_platforms_is_understood() -> None:
    assert Settings.from_environment().database_url == f"postgresql://u:{SECRET}@db/d"


def test_a_channel_says_only_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_MAX_AGE_S", "7200")
    monkeypatch.setenv("CHANNELS", with_channel(idle_timeout_s=60))
    (policy,) = Settings.from_environment().policies
    assert (policy.channel, policy.idle_timeout_s, policy.max_age_s) == ("demo", 60, 7200)


def test_the_example_lists_every_setting_and_no_other() -> None:
    assert set(example()) == {name.upper() for name in Settings.model_fields}


def test_the_example_is_valid_and_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in example().items():
        monkeypatch.setenv(name, value)
    shown = Settings.from_environment()
    assert {channel.provider for channel in shown.channels.values()} == set(ON_THE_NET)
    for name, field in Settings.model_fields.items():
        if not field.is_required() and name != "channels":
            assert getattr(shown, name) == field.default, name


def test_channels_come_from_a_variable_a_file_and_a_variable_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "channels.json").write_text(json.dumps({"filed": DEMO}))
    monkeypatch.setenv("CHANNELS", with_channel())
    monkeypatch.setenv("CHANNELS_FILE", str(tmp_path / "channels.json"))
    monkeypatch.setenv("CHANNEL_MY_BOT", json.dumps({**DEMO, "day_start": "06:00", "timezone": "Europe/Paris"}))
    monkeypatch.setenv("CHANNEL_EMPTY", "")
    channels = Settings.from_environment().channels
    assert set(channels) == {"demo", "filed", "my_bot"}
    assert channels["my_bot"].own == {"secrets": [SECRET]}
    assert SECRET not in repr(channels)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CHANNEL_DEMO", json.dumps(DEMO), "CHANNEL_DEMO: the channel demo is in CHANNELS too"),
        ("CHANNELS_FILE", json.dumps({"demo": DEMO}), "CHANNELS_FILE: the channel demo is in CHANNELS too"),
        ("CHANNELS_FILE", "{" + SECRET, "CHANNELS_FILE: must be valid JSON"),
        ("CHANNELS_FILE", None, "CHANNELS_FILE: must be the path of a file that can be read"),
        ("CHANNEL_B", "{" + SECRET, "CHANNEL_B: must be valid JSON"),
        ("CHANNEL_B", f'["{SECRET}"]', "CHANNEL_B: must be a JSON object"),
        ("CHANNEL_B", "{}", "CHANNEL_B.provider: is missing"),
        ("CHANNEL_B", json.dumps({**DEMO, "day_start": "06:00"}), "CHANNEL_B: day_start needs timezone"),
        ("CHANNEL_Ä", json.dumps(DEMO), "CHANNEL_Ä: a channel's name must be lower-case letters"),
        ("CHANNELS_FILE", json.dumps({"b": {}}), "CHANNELS_FILE.b.provider: is missing"),
        (
            "CHANNELS_FILE",
            json.dumps({f"{SECRET}!": DEMO}),
            "CHANNELS_FILE: a channel's name must be lower-case letters",
        ),
        ("CHANNELS", f'{{"demo": {{}}, "demo": {{"a": "{SECRET}"}}}}', "CHANNELS: must be valid JSON, each name"),
    ],
)
def test_a_source_of_channels_that_is_wrong_is_named_and_no_secret_is(
    variable: str, value: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHANNELS", with_channel())
    if variable == "CHANNELS_FILE":
        path = tmp_path / SECRET
        if value:
            path.write_text(value)
        value = str(path)
    monkeypatch.setenv(variable, value or "")
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment()
    assert str(caught.value).startswith(said)
    assert SECRET not in str(caught.value)


def test_another_prefix_for_the_keys_of_rq_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_KEY_PREFIX", "theirs")
    with pytest.raises(ConfigError, match=r"RQ_KEY_PREFIX: must not be set.*REDIS_PREFIX"):
        Settings.from_environment()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://me:secret@db.example.com:5433/bot?sslmode=require", "database bot on db.example.com"),
        ("postgresql:///bot?host=/run/postgresql&password=secret", "database bot on /run/postgresql"),
        ("postgresql:///?service=", "database theirs on elsewhere"),
    ],
)
def test_a_database_is_named_without_its_password(url: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATABASE", "theirs")
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert database_of(url) == named


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("rediss://:secret@lanes.example.com/2?ssl_cert_reqs=none", "lanes.example.com:6379/2"),
        ("redis+sentinel://:secret@one:1,two/lanes/2?sentinel_password=secret", "lanes of one:1,two:26379"),
        ("unix://me:secret@/run/redis.sock?db=1&password=secret", "/run/redis.sock"),
    ],
)
def test_a_redis_is_named_without_its_password(url: str, named: str) -> None:
    assert redis_of(url) == named


def test_an_address_of_sentinels_is_taken_apart() -> None:
    assert sentinels_of("redis://h") is None
    found = sentinels_of("rediss+sentinel://me:a%2Fb@one:1,[::1]:2,three/My.lanes/4?sentinel_password=open%20it")
    assert found == Sentinels(
        places=(("one", 1), ("::1", 2), ("three", 26_379)),
        service="My.lanes",
        primary="rediss://me:a%2Fb@primary/4",
        access={"password": "open it"},
    )
