"""What `onelane run` prints when everything is ready: where things are and what to do next."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from onelane.config import Settings
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedServer
from onelane.dev.run.addresses import target_of
from onelane.dev.run.data_folder import DEFAULT_CHANNEL, VARIABLE


def text(servers: list[EmbeddedServer], folder: Path, own_ops_password: str | None) -> str:
    """Format it for this environment and these servers."""
    own = {server.variable: server.url for server in servers}
    started = "".join(f"  started     {server.program}\n" for server in servers)
    command = _command()
    if os.environ.get(VARIABLE):
        command = f"{VARIABLE}={shlex.quote(str(folder))} {command}"
    return f"""
Onelane runs.

  try it      http://127.0.0.1:{os.environ["PORT"]}/try
  web         http://127.0.0.1:{os.environ["PORT"]}
  operator    http://127.0.0.1:{os.environ["PORT"]}/ops  {_key(own_ops_password)}
  PostgreSQL  {_psql(servers) if "DATABASE_URL" in own else _yours("DATABASE_URL")}
  Redis       {own.get("REDIS_URL") or _yours("REDIS_URL")}
{started}  bot         {os.environ.get("HANDLER") or Settings.model_fields["handler"].default}
  data, logs  {folder}

  talk to it, from a second terminal             {command} send --user alice "hello"
{_channels(command)}  run a bot of yours: handle(turn) in mybot.py   {command} run mybot:handle
  stop it                                        Ctrl-C
"""


def _channels(command: str) -> str:
    """Format how to talk to each channel beside the one that is chosen by itself."""
    channels = Settings.from_environment().channels
    first = DEFAULT_CHANNEL if DEFAULT_CHANNEL in channels else next(iter(channels), "")
    return "".join(
        f'  {f"the same, as {channel.provider} sends it":<45}  {command} send --channel {name} --user alice "hello"\n'
        for name, channel in channels.items()
        if name != first
    )


def _command() -> str:
    """Find what to type for `onelane`: the name alone where the shell finds this installation by it."""
    program = Path(sys.executable).with_name("onelane")
    return "onelane" if shutil.which("onelane") == str(program) else _as_typed(program)


def _key(own_ops_password: str | None) -> str:
    """Format how the operator logs in. A password that somebody chose stays off the screen."""
    return f"{os.environ.get('OPS_USER') or 'operator'} / {own_ops_password or 'your own (OPS_PASSWORD)'}"


def _yours(name: str) -> str:
    """Format where an address of the environment leads; it may hold a password."""
    return f"your own: {target_of(name)} ({name})"


def _psql(servers: list[EmbeddedServer]) -> str:
    """Format the command that opens the database: the machine's psql, else the one that came with the server."""
    server = next(server for server in servers if isinstance(server, EmbeddedPostgres))
    client = "psql" if shutil.which("psql") else shlex.quote(_as_typed(server.psql))
    return f"{client} {shlex.quote(server.url)}"


def _as_typed(path: Path) -> str:
    """Shorten a path below the working folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
