"""Bots that misbehave on request: the message's text says how."""

import asyncio
import ctypes
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import onelane
from onelane.bot import AsyncTurn, Reply, Turn


def handle(turn: Turn) -> str | list[Reply] | None:
    """Obey `word argument`; answer with the text otherwise."""
    _note(turn)
    word, _, argument = turn.message.text.partition(" ")
    act = ACTS.get(word)
    return act(argument, turn) if act else turn.message.text


def answer_all(turn: Turn) -> str:
    """Answer with the texts of the whole batch, so that a reply says which messages it is for."""
    return " ".join(message.text for message in turn.messages)


def refuse(turn: Turn) -> str:
    """Fail, whatever the text says."""
    raise ValueError(turn.message.text)


def answer_with_a_dict(turn: Turn) -> Any:
    """Answer as other frameworks want it."""
    return {"text": turn.message.text}


async def handle_async(turn: AsyncTurn) -> str:
    """Sleep as long as the text says, without a thread; or block the loop so long; or read; or do as the next says."""
    _note(turn)
    if turn.message.text == "next" and not turn.message.deaths:
        await turn.newer()
    word, _, argument = turn.message.text.partition(" ")
    if word == "sleep":
        await asyncio.sleep(float(argument))
    elif word == "block":
        _block(float(argument))
    elif word == "history":
        return f"{len(await turn.history())} lines"
    elif word == "step":
        return await turn.step("paid", lambda: asyncio.to_thread(_ask_paid, argument))
    return turn.message.text


def _block(seconds: float) -> None:
    time.sleep(seconds)


def handle_traced(turn: Turn) -> str:
    """Echo, and note begin and end on the machine's clock in BOT_LOG: overlaps of one user show there."""
    began = time.monotonic()
    time.sleep(0.001)
    with Path(os.environ["BOT_LOG"]).open("a") as log:
        log.write(f"{turn.user.sender} {turn.message.seq} {began:.6f} {time.monotonic():.6f}\n")
    return turn.message.text


def _note(turn: Turn | AsyncTurn) -> None:
    """Append one line a run to the file BOT_LOG: what ran in which process, also if it never returned."""
    if "BOT_LOG" in os.environ:
        with Path(os.environ["BOT_LOG"]).open("a") as log:
            log.write(f"{turn.user.sender} {turn.message.seq} {os.getpid()}\n")


def _sleep(argument: str, turn: Turn) -> str:
    time.sleep(float(argument))
    return turn.message.text


def _wait_for_file(argument: str, turn: Turn) -> str:
    while not Path(argument).exists():
        time.sleep(0.01)
    return turn.message.text


def _ask_paid(path: str) -> str:
    """Note in a file that a model was asked, and answer once there is a file beside it."""
    with Path(path).open("a") as asked:
        asked.write("asked\n")
    while not Path(f"{path}.answer").exists():
        time.sleep(0.01)
    return "paid"


def _fork(argument: str, turn: Turn) -> str:
    """Leave a process that keeps everything that this one has open, and never return."""
    if os.fork() == 0:
        Path(argument).touch()
    while True:
        time.sleep(60)


def _raise(argument: str, turn: Turn) -> str:
    raise ValueError(turn.message.text)


def _raise_until(argument: str, turn: Turn) -> str:
    if turn.message.attempts < int(argument):
        raise ValueError(turn.message.text)
    return f"attempt {turn.message.attempts}"


def _postpone(argument: str, turn: Turn) -> str:
    """Ask for another time, or find nobody there, until it has waited once."""
    if turn.message.laters:
        return f"laters {turn.message.laters}"
    raise onelane.Later(float(argument), "for a test") if argument else ConnectionRefusedError


def _need(argument: str, turn: Turn, error: type[Exception] = ConnectionRefusedError) -> str:
    """Answer once there is a file."""
    if not Path(argument).exists():
        raise error
    return turn.message.text


def _spin(argument: str, turn: Turn) -> str:
    while True:
        pass


def _burn(argument: str, turn: Turn) -> str:
    """Use the CPU for so many ms of this thread's time."""
    ends = time.thread_time() + float(argument) / 1000
    while time.thread_time() < ends:
        pass
    return turn.message.text


def _hog(argument: str, turn: Turn) -> str:
    """Keep the GIL: a backtracking match never gives it up."""
    return str(re.match(r"(a+)+$", "a" * 64 + "b"))


def _eat(argument: str, turn: Turn) -> str:
    """Take memory until a limit says no, or, at 1 GB, until the machine would kill the process."""
    eaten = [bytearray(2**24) for _ in range(64)]
    os.kill(os.getpid(), 9)
    return str(len(eaten))


def _start_process(argument: str, turn: Turn) -> str:
    """Answer with the exit code of a process that does nothing."""
    process = multiprocessing.Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    return str(process.exitcode)


LOCAL = threading.local()
IN_CONTEXT = ContextVar("IN_CONTEXT", default=0)


def _count_uses(argument: str, turn: Turn) -> str:
    """Answer how often this thread and this context have been used for it."""
    LOCAL.uses = getattr(LOCAL, "uses", 0) + 1
    IN_CONTEXT.set(IN_CONTEXT.get() + 1)
    return f"thread {LOCAL.uses} context {IN_CONTEXT.get()}"


def _escalate(turn: Turn) -> str:
    turn.escalate()
    return "a human takes over"


def _say_bye(argument: str, turn: Turn) -> str:
    turn.end_session(summary=argument or None)
    return "bye"


ACTS: dict[str, Callable[[str, Turn], Any]] = {
    "sleep": _sleep,
    "wait": _wait_for_file,
    "step": lambda argument, turn: turn.step("paid", lambda: _ask_paid(argument)),
    "fork": _fork,
    "raise": _raise,
    "raise-until": _raise_until,
    "later": _postpone,
    "unreachable": _postpone,
    "need": _need,
    "miss": lambda argument, turn: _need(argument, turn, RuntimeError),
    "spin": _spin,
    "burn": _burn,
    "hog": _hog,
    "eat": _eat,
    "exit": lambda argument, turn: os._exit(int(argument or 0)),
    "segv": lambda argument, turn: ctypes.string_at(0),
    "kill": lambda argument, turn: os.kill(os.getpid(), 9),
    "process": _start_process,
    "uses": _count_uses,
    "history": lambda argument, turn: f"{len(turn.history())} lines",
    "silent": lambda argument, turn: None,
    "nul": lambda argument, turn: "a\0b",
    "upload": lambda argument, turn: [
        Reply(media=[onelane.Upload(data=b"." * int(argument), name="a.bin", content_type="application/x-bin")])
    ],
    "many": lambda argument, turn: [Reply(text=str(nr)) for nr in range(int(argument))],
    "state": lambda argument, turn: _count(turn),
    "escalate": lambda argument, turn: _escalate(turn),
    "bye": _say_bye,
}


def _count(turn: Turn) -> str:
    turn.session.state["n"] = turn.session.state.get("n", 0) + 1
    turn.user.state["n"] = turn.user.state.get("n", 0) + 1
    return f"{turn.session.state['n']} {turn.user.state['n']}"
