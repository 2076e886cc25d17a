"""A bot's functions as the worker gets them: what fails is noted, and more can happen while they run."""

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from onelane.errors import Later
from onelane.turns.bots import Act, Bot, Function


class Watched:
    """Wraps functions."""

    def __init__(self, failures: list[str], begins: Callable[[], object], returns: Callable[[Any], object]) -> None:
        """`begins` is called before each run of a function, `returns` with its turn once it has returned."""
        self._failures = failures
        self._begins = begins
        self._returns = returns

    def bot(self, bot: Bot) -> Bot:
        """Wrap a bot's functions."""
        hooks = (bot.on_event, bot.on_start, bot.on_failed)
        return Bot(self._wrapped(bot.handle.function), *(hook and self._wrapped(hook) for hook in hooks))

    def _wrapped(self, function: Function) -> Function:
        if Act(function).is_async:

            @functools.wraps(function)
            async def run_async(turn: Any, *event: Any) -> Any:
                self._begins()
                with self._noting():
                    replies = await function(turn, *event)
                self._returns(turn)
                return replies

            return run_async

        @functools.wraps(function)
        def run(turn: Any, *event: Any) -> Any:
            self._begins()
            with self._noting():
                replies = function(turn, *event)
            self._returns(turn)
            return replies

        return run

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Later:
            raise
        except Exception as error:
            self._failures.append("".join(traceback.format_exception(error)))
            raise
