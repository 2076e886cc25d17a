"""Bugs, planted one at a time in the transcription: each is found by the promise that is there for it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import getsource
from types import CodeType, FunctionType, ModuleType
from typing import Final, NamedTuple

from tests.explore import lanes, records, sends, world
from tests.explore.settings import Setting
from tests.explore.state import Budget

NOTHING: Final = Budget(crashes=0, expiries=0)


class Change(NamedTuple):
    """Another text in a module."""

    module: ModuleType
    right: str
    wrong: str


class Bug(NamedTuple):
    """What is taken away, layers that back each other up together; where it shows, and as what."""

    changes: tuple[Change, ...]
    setting: Setting
    promise: str


def _turns(batch_max: int = 1, **budget: int) -> Setting:
    return Setting(answers=False, batch_max=batch_max, budget=NOTHING._replace(**budget))


def _sends(on_unknown: str, **budget: int) -> Setting:
    return Setting(messages=1, is_answered=True, on_unknown=on_unknown, budget=NOTHING._replace(**budget))


NEVER: Final = "if False:"
NOT_FENCED: Final = (
    Change(
        records,
        'if user.fence > fence:\n        return user, Begun("fenced"',
        f'{NEVER}\n        return user, Begun("fenced"',
    ),
    Change(records, 'if user.fence > fence:\n        return user, "fenced"', f'{NEVER}\n        return user, "fenced"'),
)
NOT_STALE: Final = Change(records, "if len(user.done) != turn.version:", NEVER)
PLANTED: Final[Mapping[str, Bug]] = {
    "no fence is compared": Bug(NOT_FENCED, _turns(expiries=1), "no turn writes after its successor has written"),
    "no fence is stored": Bug(
        (Change(records, "_replace(fence=fence, writer=fence)", "_replace(writer=fence)"),),
        _turns(expiries=1),
        "no turn writes after its successor has written",
    ),
    "one fence for both kinds of lanes": Bug(
        (Change(records, "_replace(out_fence=fence).put_reply", "_replace(out_fence=fence, fence=fence).put_reply"),),
        Setting(messages=2, budget=NOTHING),
        "who holds a lane is not refused",
    ),
    "a turn that was settled is settled again": Bug(
        (
            NOT_STALE,
            Change(
                records,
                'if lowest is None:\n        return user, "already"',
                "if lowest is None:\n        lowest = Waiting(turn.seqs[0])",
            ),
        ),
        _turns(losses=1),
        "messages are processed once, in their order",
    ),
    "a failure is counted again": Bug(
        (Change(records, "(lowest.attempts == turn.attempts)", "1"),),
        _turns(losses=1, failures=1),
        "a failure is counted once",
    ),
    "members of a batch are not frozen": Bug(
        (Change(records, "if batch_max > 1 and not lowest.last:", "if batch_max > 1:"),),
        _turns(crashes=1, batch_max=2),
        "a batch that begins again has the members that it had",
    ),
    "finish forgets what came meanwhile": Bug(
        (Change(lanes, "has_more or bool(jobs)", "has_more"),),
        _turns(),
        "a lane is forgotten only when nothing waits on it",
    ),
    "finish for whoever asks": Bug(
        (Change(lanes, 'if lane.lock != mine:\n        return lane, "lost"', f'{NEVER}\n        return lane, "lost"'),),
        _turns(expiries=1),
        "only its holder gives a lane up",
    ),
    "the reconciler moves lanes that are there": Bug(
        (Change(lanes, "return _added(lane), True", "return lane._replace(place=Place.DUE), True"),),
        _turns(laps=1),
        "a lane that is held is not due",
    ),
    "a pause that is over is put on the lane": Bug(
        (Change(lanes, "(pause and not is_resumed)", "pause"),),
        _turns(pauses=1),
        "a lane is paused only while its user is",
    ),
    "no reconciler": Bug(
        (Change(world, "    yield from _reconciler(state)\n", ""),),
        _turns(flushes=1),
        "whatever happened, all can be done",
    ),
    "sent without a mark": Bug(
        (Change(records, "fence).put_reply(lowest)", 'fence).put_reply(lowest._replace(state="pending"))'),),
        _sends("ask", crashes=1),
        "replies arrive once, in their order",
    ),
    "sent again without a key": Bug(
        (Change(sends, '"leave": "give_up"', '"leave": "resend"'),),
        _sends("leave", crashes=1),
        "replies arrive once, in their order",
    ),
    "sent again while the request is under way": Bug(
        (
            Change(sends, "elif not _is_over(at.user, request):", "elif False:"),
            Change(records, "elif reply.is_over:", "else:"),
        ),
        _sends("ask", expiries=1),
        "replies arrive once, in their order",
    ),
    "an old answer counts": Bug(
        (
            Change(
                records,
                'if reply.state not in {"sending", "unknown"} or reply.requests != request.attempt:',
                NEVER,
            ),
        ),
        _sends("ask", expiries=1, losses=1),
        "a reply's state moves upwards only",
    ),
}


@contextmanager
def planted(changes: Sequence[Change]) -> Iterator[None]:
    """Let functions do as the changed texts say."""
    kept: dict[FunctionType, CodeType] = {}
    try:
        for module in {change.module.__name__: change.module for change in changes}.values():
            text = getsource(module)
            for change in (change for change in changes if change.module is module):
                assert text.count(change.right) == 1, change.right
                text = text.replace(change.right, change.wrong)
            others = dict(vars(module))
            exec(text, others)
            for name, function in vars(module).items():
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    kept[function] = function.__code__
                    function.__code__ = others[name].__code__
        yield
    finally:
        for function, code in kept.items():
            function.__code__ = code
