"""The folder `.onelane/`: what `onelane run` keeps over restarts, and how other terminals find it."""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from onelane.channels import PROVIDERS
from onelane.errors import ConfigError
from onelane.model import JsonObject

VARIABLE = "ONELANE_DATA"
PACKAGE = Path(__file__).resolve().parents[2]
SERVERS = ("DATABASE_URL", "REDIS_URL")
DEFAULT_CHANNEL = "demo"
SECRET_BYTES = 32
OPS_PASSWORD_BYTES = 12
BOT_ID = 123_456
SID_DIGITS = 32


class DataFolder:
    """One `onelane run`'s servers, secret, logs and address."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._address = path / "run.json"

    @classmethod
    def of_environment(cls) -> "DataFolder":
        """Find it: where ONELANE_DATA says, in our checkout when started there, else in the working folder."""
        chosen = os.environ.get(VARIABLE)
        return cls(Path(chosen).expanduser().absolute() if chosen else _home(Path.cwd()) / ".onelane")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, alone: a lock that ends with us, however we end. Raise ConfigError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"{VARIABLE}: {self.path} cannot be used ({error.strerror}); name another") from None
        try:
            self._lock(lock)
            yield
        finally:
            os.close(lock)

    def secret(self) -> str:
        """Read the demo channel's signing secret; make it the first time."""
        path = self.path / "secret"
        if not path.exists():
            _write_private(path, "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
        return path.read_text(encoding="utf-8")

    def demo_channels(self) -> dict[str, JsonObject]:
        """Make a channel of each provider, with what it needs to send."""
        own: dict[str, JsonObject] = {
            DEFAULT_CHANNEL: {"secrets": [self.secret()]},
            "standard": {"secrets": [self.secret()]},
            "meta": {"verify_tokens": [self.token("meta-verify")], "access_token": self.token("meta-access")},
            "slack": {"bot_token": f"xoxb-{self.token('slack-bot')}"},
            "telegram": {"bot_token": f"{BOT_ID}:{self.token('telegram-bot')}"},
            "twilio": {"account_sid": f"AC{self.token('twilio-account')[:SID_DIGITS]}"},
        }
        return {name: {"provider": name, "secrets": [self.token(name)], **own.get(name, {})} for name in PROVIDERS}

    def token(self, name: str) -> str:
        """Read a secret of another demo channel; make it the first time."""
        path = self.path / f"{name}-secret"
        if not path.exists():
            _write_private(path, secrets.token_hex(SECRET_BYTES))
        return path.read_text(encoding="utf-8")

    def ops_password(self) -> str:
        """Read the operator's password; make it the first time."""
        path = self.path / "ops-password"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(OPS_PASSWORD_BYTES))
        return path.read_text(encoding="utf-8")

    def publish(self, address: Mapping[str, str], declined: Iterable[tuple[str, str]] = ()) -> None:
        """Let other terminals of the same user know how to reach what runs here.

        `declined` are the addresses of the environment that it does not use.
        """
        digests = {name: _digest(url) for name, url in declined}
        _write_private(self._address, json.dumps({"pid": os.getpid(), "declined": digests, **address}, indent=1))

    def withdraw(self) -> None:
        """Take back what was published."""
        self._address.unlink(missing_ok=True)

    def instead(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what a command uses of a living run: all where `environment` names no server, else what it declined.

        Raise ConfigError when it is another user's, and needed.
        """
        named = [name for name in SERVERS if environment.get(name)]
        try:
            published = self._read()
        except ConfigError:
            if named:
                return {}
            raise
        declined = published.pop("declined", {})
        return {
            name: value
            for name, value in published.items()
            if not named or (name in named and declined.get(name) == _digest(environment[name]))
        }

    def published(self) -> dict[str, str] | None:
        """Read what a living run has published; None when none runs. Raise ConfigError when it is another user's."""
        published = self._read()
        published.pop("declined", None)
        return published or None

    def _lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{VARIABLE}: another `onelane run` works in {self.path}; stop it, or name another folder"
            ) from None

    def _read(self) -> dict[str, Any]:
        try:
            address: dict[str, Any] = json.loads(self._address.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except PermissionError:
            raise ConfigError(f"{VARIABLE}: what runs in {self.path} was started by another user") from None
        return address if _is_alive(address.pop("pid")) else {}


def _home(working: Path) -> Path:
    """Choose the root of our checkout for all folders in it; an installed package has none."""
    checkout = PACKAGE.parents[1]
    is_checkout = (checkout / "worker" / "onelane") == PACKAGE and (checkout / "pyproject.toml").exists()
    return checkout if is_checkout and working.is_relative_to(checkout) else working


def running() -> dict[str, str] | None:
    """Answer DATABASE_URL, REDIS_URL, CHANNELS and PORT of the stack that runs here; None when none does."""
    return DataFolder.of_environment().published()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _digest(url: str) -> str:
    """Return what an address is recognised by, and cannot be read from: it is another project's."""
    return sha256(url.encode()).hexdigest()


def _write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, at once or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
