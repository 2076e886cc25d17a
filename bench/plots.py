"""Plots: one SVG a claim, from what its runs found. Text stays text, and the same results draw the same file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.claims import fairness
from bench.measuring import OURS, Rounds
from bench.result import Result
from bench.serving import CURVE, WEB_ALONE

WIDTH, BAR_HEIGHT, LINES_HEIGHT = 8.0, 0.42, 3.6
FRAME_HEIGHT = 1.1
COLOURS = {
    fairness.ALONE: "#8a8a8a",
    WEB_ALONE.name: "#5a9fd4",
    OURS: "#1b6ca8",
    "pgbench": "#8a8a8a",
    "rq": "#d08c3c",
    "earlier": "#5a9fd4",
}
SHADES = ("#d08c3c", "#a8522a", "#e3b778")
STRENGTHS = {"web_cpu_ms": 1.0, "worker_cpu_ms": 0.8, "postgres_cpu_ms": 0.5, "redis_cpu_ms": 0.3}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": OURS,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def draw(result: Result, folder: Path) -> Path:
    """Draw a claim's plot."""
    rounds = Rounds({name: list(found) for name, found in result.found.items()})
    is_tall = result.claim not in LINES
    height = FRAME_HEIGHT + BAR_HEIGHT * len(rounds.found) if is_tall else LINES_HEIGHT
    path = folder / f"{result.claim}.svg"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        DRAWN[result.claim](axes, rounds)
        axes.set_title(result.title.partition(";")[0], loc="left", fontsize=11)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return path


def _drain(axes: Axes, rounds: Rounds) -> None:
    rates = [rounds.median(name, "messages_per_s") for name in rounds.found]
    orders = [", order broken" if rounds.worst(name, "users_out_of_order") else "" for name in rounds.found]
    labels = [f"{rate:,.0f}{order}" for rate, order in zip(rates, orders, strict=True)]
    _bars(axes, list(rounds.found), rates, labels, "messages a second")


def _slow(axes: Axes, rounds: Rounds) -> None:
    values = [rounds.median(name, "at_once") for name in rounds.found]
    _bars(axes, list(rounds.found), values, [f"{value:.0f}" for value in values], "turns at once")


def _memory(axes: Axes, rounds: Rounds) -> None:
    values = [max(1.0, rounds.median(name, "kb_a_slot")) for name in rounds.found]
    _bars(
        axes,
        list(rounds.found),
        values,
        [f"{value:,.0f}" for value in values],
        "KB for one more (logarithmic)",
        scale="log",
    )


def _takeover(axes: Axes, rounds: Rounds) -> None:
    values = [rounds.median(name, "after_s") for name in rounds.found]
    ended = [all(one["went_on"] for one in found) for found in rounds.found.values()]
    labels = [f"{'' if has else 'not within '}{value:.1f} s" for has, value in zip(ended, values, strict=True)]
    _bars(axes, list(rounds.found), values, labels, "seconds after kill -9")


def _cost(axes: Axes, rounds: Rounds) -> None:
    names = list(rounds.found)
    lefts = [0.0] * len(names)
    for part, strength in STRENGTHS.items():
        values = [rounds.median(name, part) if part in rounds.found[name][0] else 0.0 for name in names]
        colours = [_colour(name) for name in names]
        axes.barh(names, values, left=lefts, color=colours, alpha=strength, height=0.7)
        lefts = [left + value for left, value in zip(lefts, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, max(lefts) * 1.2)
    for at, total in enumerate(lefts):
        axes.text(total, at, f" {total:.1f}", va="center")
    axes.set_xlabel("CPU ms a message, from dark to light: web, worker, Postgres, Redis")


def _idle(axes: Axes, rounds: Rounds) -> None:
    values = [rounds.median(name, "commands") for name in rounds.found]
    _bars(axes, list(rounds.found), values, [f"{value:.1f}" for value in values], "Redis commands a second")


def _growth(axes: Axes, rounds: Rounds) -> None:
    values = [sum(rounds.median(name, one) for one in ("accept", "begin", "settle")) for name in rounds.found]
    _bars(axes, list(rounds.found), values, [f"{value:.2f}" for value in values], "CPU ms of accept, begin and settle")


def _flushall(axes: Axes, rounds: Rounds) -> None:
    values = [rounds.median(name, "after_s") for name in rounds.found]
    names = [f"workers: {name}" for name in rounds.found]
    _bars(axes, names, values, [f"{value:.1f} s" for value in values], "seconds after FLUSHALL")


def _replies(axes: Axes, rounds: Rounds) -> None:
    names = [name for name, found in rounds.found.items() if "reply_p99_ms" in found[0]]
    values = [rounds.median(name, "reply_p99_ms") for name in names]
    _bars(axes, names, values, [f"{value:.1f} ms" for value in values], "p99 of a turn, ms")


def _storm(axes: Axes, rounds: Rounds) -> None:
    wrong = [rounds.median(name, "doubles") + rounds.median(name, "losses") for name in rounds.found]
    _bars(axes, list(rounds.found), wrong, [f"{value:.0f}" for value in wrong], "doubles and losses")


def _lanes(axes: Axes, rounds: Rounds) -> None:
    for who in dict.fromkeys(found[0]["who"] for found in rounds.found.values()):
        names = [name for name, found in rounds.found.items() if found[0]["who"] == who]
        users, took = ([rounds.median(name, figure) for name in names] for figure in ("users", "get_us"))
        axes.plot(users, took, "o-", color=_colour(who), label=who)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("users who wait")
    axes.set_ylabel("µs to get work")
    axes.legend(frameon=False)


def _curves(figure: str) -> Callable[[Axes, Rounds], None]:
    """Draw which part of all took no longer than a time, for each time."""

    def draw_curves(axes: Axes, rounds: Rounds) -> None:
        for nr, (name, found) in enumerate(rounds.found.items()):
            took = [median(one[figure][at] for one in found) for at in range(len(CURVE))]
            colour = SHADES[nr % len(SHADES)] if name.startswith("rq") else _colour(name)
            label = f"{name}, {found[0]['rate']} a second"
            axes.plot(took, [100 * part for part in CURVE], color=colour, label=label, lw=2 if name == OURS else 1.3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("ms (logarithmic)")
        axes.set_ylabel("% took no longer")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    return draw_curves


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], labels: Sequence[str], axis: str, scale: str = "linear"
) -> None:
    axes.barh(names, values, color=[_colour(name) for name in names], height=0.7)
    axes.set_xscale(scale)
    axes.invert_yaxis()
    axes.set_xlabel(axis)
    lowest = min(values)
    axes.set_xlim(0 if scale == "linear" else lowest / 3, (max(values) or 1) * (1.3 if scale == "linear" else 6))
    for at, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.text(value, at, f" {label}", va="center")


def _colour(name: str) -> str:
    return next((colour for start, colour in COLOURS.items() if name.startswith(start)), COLOURS[OURS])


LINES = {"live", "webhook", "fairness", "lanes"}
DRAWN: dict[str, Callable[[Axes, Rounds], None]] = {
    "whole_way": _drain,
    "drain": _drain,
    "skewed": _drain,
    "live": _curves("reply_curve_ms"),
    "webhook": _curves("answer_curve_ms"),
    "fairness": _curves("reply_curve_ms"),
    "slow": _slow,
    "async_slots": _slow,
    "lanes": _lanes,
    "memory": _memory,
    "cost": _cost,
    "idle": _idle,
    "takeover": _takeover,
    "growth": _growth,
    "flushall": _flushall,
    "replies": _replies,
    "storm": _storm,
}
