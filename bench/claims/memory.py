"""Memory per slot: what it costs to run one more turn at once."""

from collections.abc import Callable
from functools import partial

from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers.onelane import Onelane
from bench.peers.rq_workers import FORKING, SIMPLE, RqWorkers
from bench.plan import Plan
from bench.result import Result
from bench.waiting import Slots, wait_out
from bench.workload import Workload

NAME = "memory"
TITLE = "Memory: what one more turn at once costs, every slot being at work"
COLUMNS = ["who", "slots", "MB", "more slots", "MB then", "KB for one more", "it ÷ ours"]
FEW, MANY = 16, 200
RQ_FEW, RQ_MANY = 1, 4
WAIT_S = 1.5
NOTES = [
    "One worker process of ours; an RQ slot is a process, and a forking one two while it works.",
    "Memory of all processes, shared pages once (PSS), at its highest.",
]


def measure(plan: Plan) -> Result:
    """Compare few slots with many."""
    runs: dict[str, Callable[[], Figures]] = {OURS: _ours}
    runs |= {peer.name: partial(_rq, peer) for peer in (FORKING, SIMPLE) if plan.wants(peer.name)}
    rounds = alternate(plan, runs)
    return Result.of(plan, NAME, TITLE, rounds, columns=COLUMNS, row=_row, notes=NOTES)


def _ours() -> Figures:
    few, many = (
        wait_out(Slots(Onelane(), Workload(slots, slots), WAIT_S, environment={"WORKER_SLOTS": slots}))
        for slots in (FEW, MANY)
    )
    return _compared(few, many, FEW, MANY)


def _rq(peer: RqWorkers) -> Figures:
    few, many = (
        wait_out(Slots(peer, Workload(2 * slots, 2 * slots), WAIT_S, processes=slots)) for slots in (RQ_FEW, RQ_MANY)
    )
    return _compared(few, many, RQ_FEW, RQ_MANY)


def _compared(few: Figures, many: Figures, few_slots: int, many_slots: int) -> Figures:
    more = many["memory_mb"] - few["memory_mb"]
    return {
        "few": few_slots,
        "few_mb": few["memory_mb"],
        "many": many_slots,
        "many_mb": many["memory_mb"],
        "kb_a_slot": round(1024 * more / (many_slots - few_slots)),
        "verdict": {**few["verdict"], **many["verdict"]},
    }


def _row(rounds: Rounds, name: str) -> list[str]:
    ours = rounds.values(OURS, "kb_a_slot")
    return [
        name,
        *(f"{rounds.median(name, figure):.0f}" for figure in ("few", "few_mb", "many", "many_mb")),
        f"{rounds.median(name, 'kb_a_slot'):,.0f}",
        f"{rounds.ratio(name, OURS, 'kb_a_slot'):.0f}" if name != OURS and min(ours) > 0 else "",
    ]
