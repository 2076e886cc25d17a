"""A handler for an isolated child that does to its process, and to its wire, what the message asks for."""

import asyncio
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from onelane import Turn

WIRE = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2].isdigit() else -1
"""The child's end, which it gets as an argument."""
NOTES = Path(os.environ.get("ESCAPEE_NOTES", os.devnull))
"""Where each process writes its id: the test looks who lives on."""
MB = 2**20

time.sleep(float(os.environ.get("ESCAPEE_IMPORT_S", "0")))  # as some libraries take long to import


def handle(turn: Turn) -> str | Awaitable[str]:
    """Obey `act argument`; answer with what the act returns."""
    _note()
    act, _, argument = turn.message.text.partition(" ")
    answer = ACTS[act](argument, turn)
    return answer if isinstance(answer, Awaitable) else str(answer)


def _note() -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{os.getpid()}\n")


def _sleep(*_: object) -> None:
    while True:
        time.sleep(60)


def _close(argument: str, turn: Turn) -> None:
    os.closerange(3, 4_096)
    _sleep()


def _fork(argument: str, turn: Turn) -> None:
    """Leave a grandchild that keeps the wire; `free` lets it leave the group, too."""
    _start_with_wire(is_free=argument == "free")
    os._exit(0)


def _fork_and_close(argument: str, turn: Turn) -> None:
    """As above, and this process closes its own descriptors and lives on."""
    _start_with_wire()
    _close(argument, turn)


def _start_with_wire(*, is_free: bool = False) -> None:
    """Start a process that has the wire: one that Python forks would lose it."""
    command = ["sh", "-c", 'echo $$ >> "$ESCAPEE_NOTES"; exec sleep 600']
    subprocess.Popen(command, pass_fds=[WIRE], start_new_session=is_free)
    _wait_for_notes(2)


def _wait_for_notes(lines: int) -> None:
    while len(NOTES.read_text().splitlines()) < lines:
        time.sleep(0.01)


def _answer_beside_grandchild(argument: str, turn: Turn) -> str:
    if os.fork() == 0:
        _note()
        _sleep()
    _wait_for_notes(2)
    return "answered"


def _eat(argument: str, turn: Turn) -> None:
    """Take memory until somebody says no; `apart` does so in a grandchild."""
    if argument == "apart" and os.fork():
        _sleep()
    eaten: list[bytes] = []
    while len(eaten) < 256:
        eaten.append(b"x" * 8 * MB)
        time.sleep(0.005)
    os._exit(0)


def _threads(argument: str, turn: Turn) -> int:
    """Run so many threads at once, and answer the MB of address space that they take."""
    all_run = threading.Barrier(int(argument) + 1)

    def work() -> None:
        held = bytearray(64_000)
        all_run.wait()
        all_run.wait()
        del held

    threads = [threading.Thread(target=work) for _ in range(int(argument))]
    for thread in threads:
        thread.start()
    all_run.wait()
    size = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    all_run.wait()
    for thread in threads:
        thread.join()
    return int(size.split()[1]) // 1024


def _fork_and_fall(argument: str, turn: Turn | None) -> str | Awaitable[str]:
    """Let a grandchild leave the handler, and answer when it has ended."""
    if argument == "async":
        return _fork_and_fall_async()
    if (pid := os.fork()) == 0:
        return "theirs"
    os.waitpid(pid, 0)
    return "ours"


async def _fork_and_fall_async() -> str:
    await asyncio.sleep(0)
    return str(_fork_and_fall("", turn=None))


def _stop(argument: str, turn: Turn) -> str:
    os.kill(os.getpid(), signal.SIGSTOP)
    return "went on"


def _stop_within_message(argument: str, turn: Turn) -> str:
    os.write(WIRE, struct.pack("!i", 1_000) + b'{"effects"')
    return _stop(argument, turn)


def _endless_message(argument: str, turn: Turn) -> None:
    os.write(WIRE, struct.pack("!i", 3_000_000) + b"[")
    while True:
        os.write(WIRE, b" ")
        time.sleep(0.05)


def _endless_questions(argument: str, turn: Turn) -> None:
    while True:
        turn.tool_output("nothing")


def _never_read(argument: str, turn: Turn) -> None:
    """Ask and ask, and take no answer: both directions fill up."""
    question = json.dumps({"ask": "history", "limit": 50}).encode()
    while True:
        os.write(WIRE, struct.pack("!i", len(question)) + question)


def _raw(message: bytes) -> None:
    written = 0
    framed = struct.pack("!i", len(message)) + message
    while written < len(framed):
        written += os.write(WIRE, framed[written:])
    _sleep()


ACTS: dict[str, Callable[[str, Turn], object]] = {
    "echo": lambda argument, turn: argument,
    "pid": lambda argument, turn: os.getpid(),
    "sleep": _sleep,
    "close": _close,
    "fork": _fork,
    "fork-and-close": _fork_and_close,
    "fall": _fork_and_fall,
    "grandchild": _answer_beside_grandchild,
    "stop": _stop,
    "stop-within": _stop_within_message,
    "endless": _endless_message,
    "ask": _endless_questions,
    "never-read": _never_read,
    "deep": lambda argument, turn: _raw(b'{"effects":{"replies":' + b"[" * 500_000),
    "deep-value": lambda argument, turn: _deep(turn, int(argument)),
    "garbage": lambda argument, turn: _raw(b"\x80\x04."),
    "other": lambda argument, turn: _raw(b'{"effects": 1}'),
    "null": lambda argument, turn: _raw(b"null"),
    "too-long": lambda argument, turn: _too_long(),
    "exit": lambda argument, turn: os._exit(int(argument)),
    "kill": lambda argument, turn: os.kill(os.getpid(), 9),
    "eat": _eat,
    "threads": _threads,
    "files": lambda argument, turn: resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    "terminal": lambda argument, turn: sys.stdin.read(),
    "signals": lambda argument, turn: _signals(),
    "history": lambda argument, turn: len(turn.history(int(argument))),
    "output": lambda argument, turn: turn.tool_output("a\0b"),
    "sizes": lambda argument, turn: f"{_size(turn.session.state)} {_size(turn.user.state)}",
}


def _too_long() -> None:
    os.write(WIRE, struct.pack("!i", 2**31 - 1))
    _sleep()


def _signals() -> str:
    for one in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), one)
    return "alive"


def _size(state: object) -> int:
    return len(json.dumps(state, ensure_ascii=False).encode())


def _deep(turn: Turn, depth: int) -> str:
    deep: object = 1
    for _ in range(depth):
        deep = [deep]
    turn.session.state["deep"] = deep
    return "deep"
