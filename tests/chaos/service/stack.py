"""The real service on servers of its own: webs, workers, who writes, the providers' fakes, a proxy before each server.

The service's processes reach Postgres and Redis through the proxies, each worker through two of its own before them;
whoever checks or operates goes straight there.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onelane.dev.embedded import EmbeddedPostgres
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import HOST, PYTHON, WORKER, is_ready, web_command
from onelane.dev.stack import Stack as Processes
from onelane.testing.fake_providers import FakeProviders
from onelane.testing.fake_providers.running import ADDRESSES
from onelane.testing.fake_providers.running import COMMAND as FAKES_COMMAND
from tests.chaos.history import HISTORY
from tests.chaos.service import full_disk, old_times
from tests.chaos.service.dynos import Dyno
from tests.chaos.service.orders import DYNO
from tests.chaos.traffic.speech import BUSY
from tests.conftest import ROOT, SECRET
from tests.pooler import Pooler, find
from tests.proxy import Proxy
from tests.stepping import SteppingClock, SteppingRedis

WEB_NAMES = ("web-1", "web-2")
WORKER_NAMES = ("worker-1", "worker-2", "worker-3")
ASYNC_WORKER_NAMES = ("worker-2",)
"""Those whose bot is async: all its turns share one event loop."""
CLOCKED_WORKER_NAMES = ("worker-1", "worker-2")
"""Those that have a clock of their own, which can step."""
POOLED_NAMES = ("web-2", "worker-3")
"""Those that reach Postgres through a PgBouncer in transaction mode."""
POOLED_CONNECTIONS = 8
POOLER_CONNECT_S = 3
SLOTS = 8
TTL_S = 3
ATTEMPTS_MAX = 3
GRACE_S = 5
READY_S = 30.0
POSTGRES_SETTINGS = {"fsync": "off", "max_connections": "100"}
"""A killed server loses nothing without fsync; only a machine's crash would."""
COLLECT = {"on_busy": "collect", "collect_quiet_s": 0.3, "collect_max_s": 1.5, "collect_max_messages": 6}
CHANNELS: dict[str, dict[str, Any]] = {
    "demo": {"provider": "standard", "secrets": [SECRET]},
    "brief": {"provider": "standard", "secrets": [SECRET], "idle_timeout_s": 5},
    "gathered": {"provider": "standard", "secrets": [SECRET], **COLLECT},
    "interrupted": {"provider": "standard", "secrets": [SECRET], "on_busy": "interrupt", "interrupt_max": 3},
    "rejecting": {"provider": "standard", "secrets": [SECRET], "on_busy": "reject", "busy_reply": BUSY},
    "aged": {"provider": "standard", "secrets": [SECRET], "max_age_s": 8},
    "meta": {
        "provider": "meta",
        "secrets": ["a-meta-app-secret-of-chaos"],
        "access_token": "a-meta-token-of-chaos",
        "phone_number_id": "42",
    },
    "slack": {
        "provider": "slack",
        "secrets": ["a-slack-signing-secret-of-chaos"],
        "bot_token": "xoxb-of-chaos-0123456",
    },
    "telegram": {
        "provider": "telegram",
        "secrets": ["a-telegram-secret-of-chaos"],
        "bot_token": "123456:a-telegram-token-of-chaos",
    },
    "support": {
        "provider": "twilio",
        "secrets": ["a-twilio-auth-token"],
        "account_sid": f"AC{0:032x}",
        "from_number": "+15550100",
        "public_url": "https://chaos.example",
    },
}
SETTINGS = {
    "LOCK_TTL_S": TTL_S,
    "RETENTION_DAYS": old_times.KEPT_DAYS,
    "REDIS_MAY_EVICT": "true",
    "STALL_LIMIT_S": 6,
    "WORKER_SLOTS": SLOTS,
    "RETRY_BASE_S": 0.05,
    "RETRY_MAX_S": 0.5,
    "ATTEMPTS_MAX": ATTEMPTS_MAX,
    "TURN_TIMEOUT_S": 3,
    "SHUTDOWN_GRACE_S": GRACE_S,
    "DEVELOPMENT": "true",
    "LOG_FORMAT": "json",
    "HANDLER": "tests.chaos.service.bot:handle",
    "SEND_DEADLINE_S": 2,
    "UNKNOWN_HOLD_S": 6,
}
ASYNC_HANDLER = "tests.chaos.service.bot:handle_async"
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "TZ")
"""All that a run takes from the environment that it is started in."""
PROVIDER = "provider"
FAKES = "providers-fakes"
FAKES_TOKEN = "of-chaos"


@dataclass(frozen=True)
class Folder:
    """Where a run keeps what it makes."""

    path: Path

    @property
    def history(self) -> Path:
        """Where every process writes what it did."""
        return self.path / "history"

    @property
    def logs(self) -> Path:
        """Where the processes' output goes, one file a start."""
        return self.path / "logs"

    @property
    def received(self) -> Path:
        """What the providers' fakes received and made visible."""
        return self.path / "received.jsonl"

    def create(self) -> None:
        """Make the folders; those of an earlier run are refused."""
        for folder in (self.history, self.logs):
            folder.mkdir(parents=True)


@dataclass
class Stack:
    """All processes of one run. Leaving the block ends them, whatever happened in it."""

    folder: Folder
    seed: int
    storm_s: float
    rate: float | None = None
    """Messages a second, on average; the provider has a default."""
    mutant: str | None = None
    postgres: EmbeddedPostgres = field(init=False)
    redis: SteppingRedis = field(init=False)
    fakes: FakeProviders = field(init=False)
    postgres_proxy: Proxy = field(init=False)
    redis_proxy: Proxy = field(init=False)
    pooler: Pooler | None = field(init=False, default=None)
    """Before the proxy of Postgres, where a PgBouncer is installed; POOLED_NAMES go through it."""
    own_proxies: dict[str, Proxy] = field(init=False, default_factory=dict)
    """Each worker's own before those two, by `worker-1/postgres` and the like."""
    clocks: dict[str, SteppingClock] = field(init=False, default_factory=dict)
    """Those of the workers that have one of their own."""
    dynos: dict[str, Dyno] = field(init=False, default_factory=dict)
    _exits: ExitStack = field(init=False, default_factory=ExitStack)

    def start(self) -> None:
        """Start everything but the provider, and wait until it can do its work."""
        self.fakes = FakeProviders(f"http://{HOST}:{free_port()}", FAKES_TOKEN, self.folder.received)
        self._processes = self._exits.enter_context(Processes(self.folder.logs, self._environment(), cwd=ROOT))
        self.postgres = EmbeddedPostgres(self.folder.path / "postgres", POSTGRES_SETTINGS)
        self.redis = SteppingRedis(self.folder.path / "redis")
        self._processes.start_servers(self.postgres, self.redis)
        self.postgres_proxy = self._exits.enter_context(Proxy(self.postgres.url))
        self.redis_proxy = self._exits.enter_context(Proxy(self.redis.url))
        if find():
            self.pooler = self._exits.enter_context(
                Pooler(
                    self.folder.path,
                    self.postgres_proxy.url,
                    connections=POOLED_CONNECTIONS,
                    server_connect_timeout=POOLER_CONNECT_S,
                )
            )
        self._processes.migrate()
        full_disk.prepare(self.postgres.url)
        if self.mutant:
            import_module("tests.chaos.mutants").plant_in_database(self.mutant, self.postgres.url)
        self._prepare_dynos()
        for dyno in self.dynos.values():
            if dyno is not self.provider:
                dyno.start()
        self.await_ready(READY_S)

    @property
    def provider(self) -> Dyno:
        """The one dyno that is not started with the others, and that ends by itself."""
        return self.dynos[PROVIDER]

    def tend(self) -> None:
        """Start again what has died."""
        for dyno in self.dynos.values():
            dyno.tend()

    def await_ready(self, within_s: float) -> None:
        """Wait until everything answers; raise TimeoutError."""
        deadline = time.monotonic() + within_s
        while not self.is_ready():
            self.tend()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service was not ready within {within_s:.0f} s: see {self.folder.logs}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether all webs answer, all workers have a process with its helper, and no old release is left."""
        return (
            all(dyno.is_well for dyno in self.dynos.values() if dyno.was_started)
            and all(self.dynos[name].pids(role) for name in WORKER_NAMES for role in ("process", "helper"))
            and all(map(is_ready, self._web_ports))
        )

    def stop_service(self) -> list[str]:
        """Ask all processes to end as a platform does; return what did not end well, in the whole run."""
        for dyno in self.dynos.values():
            dyno.ask_to_stop()
        for dyno in self.dynos.values():
            dyno.await_stop()
        return [problem for dyno in self.dynos.values() for problem in dyno.problems]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def _prepare_dynos(self) -> None:
        self._web_ports = [free_port() for _ in WEB_NAMES]
        through_proxies = {"DATABASE_URL": self.postgres_proxy.url, "REDIS_URL": self.redis_proxy.url}
        called_back = ["--callback", f"http://{HOST}:{self._web_ports[0]}"]
        served = ["--port", self.fakes.base_url.rpartition(":")[2], "--log", str(self.folder.received)]
        self._add(FAKES, [*FAKES_COMMAND, *served, *called_back], {"FAKE_PROVIDERS_TOKEN": FAKES_TOKEN})
        for name, port in zip(WEB_NAMES, self._web_ports, strict=True):
            web = web_command(port, "tests.chaos.service.web:app", "--reuse-port")
            self._add(name, web, {**through_proxies, **self._pooled(name)})
        for name in WORKER_NAMES:
            self._add(name, WORKER, self._of_worker(name))
        plan = ["--seed", str(self.seed), "--seconds", f"{self.storm_s:g}"]
        plan += ["--rate", f"{self.rate:g}"] if self.rate else []
        urls = [part for port in self._web_ports for part in ("--web", f"http://{HOST}:{port}")]
        self._add(PROVIDER, [*PYTHON, "tests.chaos.traffic.provider", *plan, *urls])

    def _of_worker(self, name: str) -> dict[str, str]:
        """Give a worker proxies of its own and the name by which it is given orders; some a clock, or an async bot."""
        pooled = self._pooled(name)
        urls = {"postgres": pooled.get("DATABASE_URL", self.postgres_proxy.url), "redis": self.redis_proxy.url}
        for server, url in urls.items():
            self.own_proxies[f"{name}/{server}"] = self._exits.enter_context(Proxy(url))
        if name in CLOCKED_WORKER_NAMES:
            self.clocks[name] = SteppingClock(self.folder.path / f"{name}.offset", looks_every_s=1)
        return {
            **pooled,
            **(self.clocks[name].environment if name in self.clocks else {}),
            "DATABASE_URL": self.own_proxies[f"{name}/postgres"].url,
            "REDIS_URL": self.own_proxies[f"{name}/redis"].url,
            DYNO: name,
            **({"HANDLER": ASYNC_HANDLER} if name in ASYNC_WORKER_NAMES else {}),
        }

    def _pooled(self, name: str) -> dict[str, str]:
        """Lead one of POOLED_NAMES to the pooler, if there is one."""
        if self.pooler is None or name not in POOLED_NAMES:
            return {}
        return {"DATABASE_URL": self.pooler.url, "PG_POOLER": "transaction"}

    def _add(self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.dynos[name] = Dyno(self._processes, name, argv, environment or {}, is_endless=name != PROVIDER)
        self._exits.callback(self.dynos[name].kill)

    def _environment(self) -> dict[str, object]:
        return {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            **SETTINGS,
            "PYTHONPATH": ROOT,
            "CHANNELS": json.dumps({name: self._pointed(name, channel) for name, channel in CHANNELS.items()}),
            HISTORY: self.folder.history,
            **({"CHAOS_MUTANT": self.mutant} if self.mutant else {}),
        }

    def _pointed(self, name: str, channel: dict[str, Any]) -> dict[str, Any]:
        """Let a channel send to its fake."""
        return {**channel, **dict.fromkeys(ADDRESSES[channel["provider"]], self.fakes.address(name))}
