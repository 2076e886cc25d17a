"""The checker of the chaos harness: silent about what may happen, loud about each planted fault."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import report
from tests.chaos.checker.checks import CHECKS, all_violations
from tests.chaos.checker.spans import Spans, crowded
from tests.chaos.checker.tale import CHANNEL, SENDER, USER, Tale, instant, message_id, text_of
from tests.chaos.stalls import ready
from tests.chaos.traffic.speech import BUSY
from tests.conftest import ROOT

JUDGES = [*(ROOT / "tests" / "chaos" / "checker").rglob("*.py"), ROOT / "tests" / "policy_model.py"]


@pytest.fixture
def tale() -> Tale:
    return Tale()


@pytest.mark.parametrize("path", JUDGES, ids=lambda path: path.stem)
def test_who_judges_shares_nothing_with_the_product(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert not {name.partition(".")[0] for name in names} & {"onelane", "onelane_web", "bench"}


def test_a_healthy_history_breaks_no_promise(tale: Tale) -> None:
    assert all_violations(tale.evidence()) == []
    assert [session["id"] for session in tale.sessions] == ["session-1", "session-2"]


# what may happen


def lost_answer(tale: Tale) -> None:
    """A commit counts although nobody heard of it."""
    tale.find("commit", message_id=message_id(3))["outcome"] = "unknown"


def late_note(tale: Tale) -> None:
    """A worker was frozen between its commit and its note."""
    tale.find("commit", message_id=message_id(2))["at"] = 65.0


def refused_run(tale: Tale) -> None:
    """A frozen worker wakes up, its successor has done its work."""
    tale.turn(3, 30.05, 2, 2.5)
    tale.events.remove(tale.find("begin", pid=2))
    tale.find("commit", pid=2)["outcome"] = "fenced"
    tale.find("finish", pid=2)["released"] = "lost"
    tale.fault(29, 30)


def redriven(tale: Tale) -> None:
    """A dead message is redriven, and comes after those that were processed meanwhile."""
    die(tale, 2)
    tale.command("redrive", 75, 75.1, message_id=message_id(2))
    again = {"state": "processed", "redriven_at": instant(75.05), "processed_at": instant(75.3)}
    tale.messages[1] |= again
    tale.turn(2, 75.2, 1, 99)
    tale.reply(2, 1, text_of(2), "session-1", 75.4)
    tale.outputs.append({"session_id": "session-1", "message_id": message_id(2), **output_of(2)})
    tale.sessions[0]["state"]["n"] += 1
    tale.user["state"]["n"] += 1


def ended_by_operator(tale: Tale, at: float = 60.05) -> None:
    """An operator ends the session while message 6 waits: it takes effect after that."""
    tale.command("end", 60.04, 60.06)
    tale.messages[5]["end_at"] = instant(at)
    ended = {"status": "ended", "ended_at": instant(at), "ended_reason": "operator"}
    tale.sessions[1] |= {**ended, "last_message_at": tale.messages[5]["accepted_at"], "state": {"n": 1}}
    begun = {"id": "session-3", "user_id": USER, "status": "active", "ended_at": None, "ended_reason": None}
    at = tale.messages[6]["accepted_at"]
    tale.sessions.append({**begun, "started_at": at, "last_message_at": at, "state": {"n": 1}})
    for row in (tale.messages[6], tale.replies[-1], *(one for one in tale.events if one.get("seq") == 7)):
        row["session_id"] = "session-3"
    tale.find("commit", message_id=message_id(7))["session_id"] = "session-3"


def swept(tale: Tale) -> None:
    """The sweep has come by after the last message."""
    tale.read_at = 200
    tale.sessions[1] |= {"status": "ended", "ended_reason": "timeout", "ended_at": instant(130.005)}


def overtaken(tale: Tale) -> None:
    """An operator escalates at the moment in which message 6 is begun: handled or not, both is right."""
    tale.command("escalate", 59.9, 60.3)
    tale.command("hand_back", 65, 65.1)
    unhandled(tale, 6)


def together(tale: Tale) -> None:
    """Messages 6 and 7 are answered by one turn."""
    alone = (tale.find("start", seq=6)["run"], "1:6")
    tale.events = [
        one
        for one in tale.events
        if one.get("message_id") != message_id(6) and one.get("run") not in alone and one.get("token") not in alone
    ]
    first = {"message_id": message_id(6), "seq": 6}
    tale.find("begin", seq=7).update(first, seqs=[6, 7])
    run = tale.find("start", seq=7)
    run.update(first, text=text_of(6), members=[message_id(6), message_id(7)])
    tale.find("end", run=run["run"])["members"] = run["members"]
    tale.find("commit", message_id=message_id(7)).update(first)
    tale.messages[5]["processed_at"] = instant(70.1)
    for ordinal, reply in enumerate((one for one in tale.replies if one["turn_seq"] > 5), 1):
        reply |= {"turn_seq": 7, "ordinal": ordinal}
    answered = {"session_id": "session-2", "message_id": message_id(7)}
    tale.outputs.append({**answered, "name": "batch", "data": {"seqs": [6, 7]}})


def in_two(tale: Tale) -> None:
    together(tale)
    tale.outputs.append({**tale.outputs[-1], "message_id": message_id(5)})


def never_together(tale: Tale) -> None:
    together(tale)
    run = tale.find("start", seq=6)
    for event in (run, tale.find("end", run=run["run"])):
        event["members"] = [message_id(6)]


def widened(tale: Tale) -> None:
    """A turn that runs again after a crash has one more message than before."""
    together(tale)
    begin = tale.find("begin", seq=6)
    tale.note(**{**begin, "at": 69.5, "since": 69.4, "fence": 5.5, "seqs": [6]})


def widened_in_flight(tale: Tale) -> None:
    """A turn is thrown away and begins again with one more, while another worker asks, and is answered just before."""
    interrupted(tale)
    together(tale)
    begin = tale.find("begin", seq=6)
    tale.note(**{**begin, "pid": 9, "at": 70.0, "since": 69.9, "fence": 5.5, "seqs": [7]})
    begin["since"] = 69.8


def committed_beside_newer(tale: Tale) -> None:
    """Newer messages interrupt, message 7 came while message 6 ran, and that one's turn was committed."""
    interrupted(tale)
    tale.messages[5]["processed_at"] = instant(70.3)
    tale.find("commit", message_id=message_id(6)).update(at=70.35)


def interrupted(tale: Tale) -> None:
    tale.find("setup")["channels"] = {CHANNEL: {"idle_timeout_s": 60, "on_busy": "interrupt", "interrupt_max": 3}}


def told_for_nothing(tale: Tale) -> None:
    """The channel rejects, nothing came while the user was answered, and they were told so."""
    tale.find("setup")["channels"] = {CHANNEL: {"idle_timeout_s": 60, "on_busy": "reject"}}
    tale.reply(7, 2, BUSY, "session-2", 70.3)


def thrown_away_too_often(tale: Tale) -> None:
    interrupted(tale)
    commit = tale.find("commit", message_id=message_id(6))
    for nr in range(4):
        tale.note(**{**commit, "at": 60.08 + nr / 1000, "outcome": "superseded"})


def call(tale: Tale, at: float, phase: str, pid: int = 1) -> None:
    tale.note("call", at, pid=pid, user_id=USER, batch=f"{message_id(6)}:6", key="1", phase=phase)


def asked_again(tale: Tale) -> None:
    """A model is asked for what is kept."""
    for nr, phase in enumerate(("begin", "kept", "begin")):
        call(tale, 60.05 + nr / 5, phase)


def lost_call(tale: Tale) -> None:
    """A model's whole answer is not kept, so that it is asked again."""
    for at, phase, pid in ((60.05, "begin", 2), (60.06, "answered", 2), (60.07, "begin", 1), (60.08, "kept", 1)):
        call(tale, at, phase, pid)


def lost_call_beside_a_kill(tale: Tale) -> None:
    lost_call(tale)
    tale.fault(60.065, 60.2, name="kill-worker", pids=[3])


def second_call(tale: Tale) -> None:
    """Two processes ask at once, since Redis had forgotten who has the lane: the first answer is kept."""
    for at, phase, pid in ((60.05, "begin", 1), (60.06, "begin", 2), (60.07, "kept", 1), (60.08, "answered", 2)):
        call(tale, at, phase, pid)


def cut_call(tale: Tale) -> None:
    """The same, and a kill came between the answer and its keeping."""
    lost_call(tale)
    tale.fault(60.065, 60.2, name="kill-worker", pids=[2])


def forgotten_call(tale: Tale) -> None:
    """The same, and Redis forgot the lease between the answer and its keeping."""
    lost_call(tale)
    tale.fault(60.065, 60.066, name="flush-redis", pids=[])


def evicted_call(tale: Tale) -> None:
    """The same, and Redis evicted the lease."""
    lost_call(tale)
    tale.fault(60.05, 60.07, name="evicting-redis", pids=[])


def explained_overlap(tale: Tale) -> None:
    overlap(tale)
    tale.fault(56, 57, pids=[1])


def overlap_after_a_frozen_helper(tale: Tale) -> None:
    """The helper is another process of the same worker."""
    overlap(tale)
    tale.note("boot", 1, dyno="worker-1")
    tale.fault(56, 57, name="freeze-helper", pids=[11])


def late_start_after_a_freeze(tale: Tale) -> None:
    """A worker is frozen between its lease and its handler, which starts beside that of the next lease."""
    overlap(tale)
    tale.note("lease", 55, since=54.9, pid=6, user_id=USER, token="6:5", fence=5.5, taken_over=False)
    tale.fault(55.5, 60.05, pids=[6])


def overlap_beside_a_frozen_worker(tale: Tale) -> None:
    """Another worker was frozen, and a web was killed: that takes no lease from this one."""
    overlap(tale)
    tale.fault(56, 57, pids=[5])
    tale.note("stall", 57, pid=5, since=56, until=57)
    tale.fault(58, 58.5, name="kill-web", target="web-1/head")


def given_up_run(tale: Tale) -> None:
    """A handler hangs: its attempt is noted as failed, its thread runs on."""
    overlap(tale)
    tale.find("start", message_id=message_id(6))["order"] = "hang"
    lane = {"user_id": USER, "fence": 6, "message_id": message_id(6), "session_id": "session-2"}
    tale.note("fail", 60.05, pid=1, since=60.045, outcome="retry", **lane)


def own_failure(tale: Tale) -> None:
    """A handler raises, and succeeds the next time."""
    charged(tale, "raised")


def slow_in_frozen_process(tale: Tale) -> None:
    """A handler takes too long because its process was stopped."""
    charged(tale, "ok")
    tale.fault(59.83, 59.84, pids=[1])


def kept_waiting_by_a_fault(tale: Tale, target: str = "postgres-proxy", name: str = "cut") -> None:
    """A delivery is answered late while something is broken that it needs."""
    tale.find("ack", delivery="d7")["at"] = 73.0
    tale.fault(69, 74, name=name, target=target)


def own_row_locked(tale: Tale) -> None:
    """A delivery of the user whose row is locked is refused, and answered later."""
    refused_while_locked(tale, USER)


def redis_is_full(tale: Tale) -> None:
    """Redis is full while all of this happens: that excuses nothing, and needs no excuse."""
    tale.fault(59, 61, name="full-redis", target="redis/now")
    tale.fault(69, 71, name="step-clock", target="redis/clock")


def missed_fault(tale: Tale) -> None:
    """One of many faults of a kind has struck nothing."""
    tale.find("setup")["planned"] = {"cut": 5}
    tale.fault(75, 76, name="cut")
    tale.fault(77, 78, name="cut")
    tale.find("fault", span=77, phase="end")["is_missed"] = True


def others_hold(tale: Tale, *held: tuple[int, float, float]) -> None:
    """Let workers hold lanes of others: each by process, from when until when."""
    for nr, (pid, since, until) in enumerate(held):
        lane = {"user_id": f"other {nr}", "pid": pid, "token": f"{pid}:{nr}"}
        tale.note("lease", since, **lane, fence=nr, taken_over=False)
        tale.note("finish", until, **lane, released="forgotten")


def busy_slots(tale: Tale) -> None:
    """Message 6 waits while all slots are taken."""
    wait_in_calm(tale)
    others_hold(tale, *[(2, 60.0, 64.0)] * 7)


def busy_slots_of_those_there(tale: Tale) -> None:
    """Message 6 waits while the slots of one worker are taken, and the other one has ended and is not back."""
    wait_in_calm(tale)
    others_hold(tale, (2, 5, 40), (3, 66, 67), *[(1, 60.0, 64.0)] * 3)


def busy_slots_before_another_came(tale: Tale) -> None:
    """Message 6 waits while the slots of one worker are taken, and the other has only just come back."""
    wait_in_calm(tale)
    others_hold(tale, (2, 5, 40), (3, 61.0, 67), *[(1, 60.0, 64.0)] * 3)


def a_worker_starts(tale: Tale) -> None:
    """Message 6 waits while a worker, which has ended, begins anew."""
    wait_in_calm(tale)
    others_hold(tale, (2, 5, 40), (3, 66, 67))


def a_web_starts(tale: Tale, why: str = "ConnectionRefusedError") -> None:
    """Message 7 was refused before: the web was killed, and is not back."""
    refused_while(tale, "kill-web", why, "web-1/head")
    tale.find("fault", phase="end")["at"] = 62


def lost_twice(tale: Tale, asked_at: tuple[float, ...] = (35, 45), *, is_sent_again: bool = True) -> None:
    """Two requests for a reply were lost, and its provider has said so each time."""
    tale.replies[2].update(state="failed", failure="absent", sent_at=None, failed_at=instant(46))
    tale.seen.pop(2)
    tale.requests[2]["fault"] = "closed"
    if is_sent_again:
        tale.mark(tale.replies[2]["id"], 38, 1, 3.5, attempt=2)
    for at in asked_at:
        tale.ask("look_up", at)


def seen_although_absent(tale: Tale) -> None:
    seen = tale.seen[2]
    lost_twice(tale)
    tale.seen.insert(2, seen)


def failure_noted_late(tale: Tale) -> None:
    """A handler hangs, and its failure is stored when the next run in the same process has gone well already."""
    charged(tale, "ok")
    tale.find("start", run="run-6-1-59.8")["order"] = "hang"
    tale.find("fail", fence=5.5).update(at=60.15, since=59.9)


def places_taken(tale: Tale, *, is_taken: bool = True) -> None:
    """None of three faults of a kind could strike: others had their places."""
    tale.find("setup")["planned"] = {"cut": 3}
    tale.note("skipped", 50, name="cut", target="redis-proxy", is_taken=is_taken)


def late_on_a_crowded_machine(tale: Tale, ready_each: float = 2.0) -> None:
    """A delivery is answered after three seconds while two threads want each core: it would have been half of that."""
    tale.find("ack", delivery="d7")["at"] = 73.0
    for since in (70, 71, 72):
        tale.note("load", since + 1, since=since, until=since + 1, ready_each=ready_each)


def pool_went_silent(tale: Tale, pooled: str = "web-1") -> None:
    """A delivery is answered late some time after connections went silent, by a web that has a pooler."""
    tale.find("setup")["pooled"] = [pooled]
    tale.find("ack", delivery="d7")["at"] = 73.0
    tale.fault(58, 60, name="silence", target="postgres-proxy")


def refused_while(tale: Tale, fault: str, why: str = "503", target: str = "redis/now", until: float = 80) -> None:
    """Message 7 was answered 503 before, while something was wrong, or after that."""
    tale.note(**{**tale.find("send", delivery="d7"), "at": 69.9, "attempt": 0})
    tale.note("no_ack", 69.95, delivery="d7", attempt=0, why=why)
    tale.fault(60, until, name=fault, target=target)


def refused_after_a_silence(tale: Tale) -> None:
    """Message 7 was answered 503 while others waited for their answers on connections that had gone silent."""
    refused_while(tale, "silence", target="postgres-proxy", until=62.5)


def given_up(tale: Tale) -> None:
    """Nobody knows what became of a reply, and its provider cannot be asked; it came late."""
    given_up_after_an_answer(tale)
    tale.requests[2]["fault"] = "accept_and_silent"
    tale.seen[2].update(n=99, at=65.0)


def given_up_after_an_answer(tale: Tale) -> None:
    tale.user["channel"] = "meta"
    tale.replies[2].update(state="unknown", sent_at=None, given_up_at=instant(45))


def given_up_as_it_came_late(tale: Tale, late_s: float = 1.8) -> None:
    """The same, since the machine had so much to do that its request reached the provider after the deadline."""
    given_up_after_an_answer(tale)
    tale.requests[2]["at"] += late_s


def given_up_of_the_dead(tale: Tale, killed: int = 9) -> None:
    """The same, since the process was killed that had it."""
    given_up_after_an_answer(tale)
    held_by(tale, 9, 3.1)
    tale.fault(30.25, 30.3, name="kill-worker", pids=[killed])


def held_by(tale: Tale, pid: int, fence: float) -> None:
    """Let another process have the lane of a reply, and end before it could tell what the provider has answered."""
    tale.events = [one for one in tale.events if one.get("token") != f"out 1:{fence}" or one["kind"] == "out_lease"]
    tale.events.remove(tale.find("out_settle", fence=fence))
    for event in (one for one in tale.events if one.get("fence") == fence):
        event["pid"] = pid


def reply_left_with_the_dead(tale: Tale, killed: int = 9, waits_s: float = 9.0) -> None:
    """A worker dies that has a lane of replies; somebody else takes it much later."""
    held_by(tale, 9, 7.1)
    tale.fault(70.25, 70.3, name="kill-worker", pids=[killed])
    tale.replies[-1]["sent_at"] = instant(70.25 + waits_s + 0.06)
    tale.ship(tale.replies[-1]["id"], 70.25 + waits_s, 1, 7.2)


def reply_taken_in_time(tale: Tale) -> None:
    """The same, and the lane is taken when its lease has run out."""
    reply_left_with_the_dead(tale, waits_s=3.5)


def reply_left_by_its_status(tale: Tale) -> None:
    """The worker dies after its request, and a status tells its end: nobody needs the lane until much later."""
    held_by(tale, 9, 7.1)
    tale.fault(70.25, 70.3, name="kill-worker", pids=[9])
    tale.replies[-1]["sent_at"] = instant(72)
    lane = {"pid": 1, "user_id": USER, "token": "out 1:7.2"}
    tale.note("out_lease", 79, since=78.9, **lane, fence=7.2, taken_over=False)
    tale.note("out_finish", 79.1, since=79.05, **lane, released="forgotten")


def reply_waits_in_calm(tale: Tale, by_s: float = 3.0) -> None:
    """A reply is marked long after it was committed."""
    tale.note("calm", 65, phase="begin")
    tale.note("calm", 80, phase="end")
    for event in tale.events:
        if event["kind"].startswith("out_") and event["at"] > 70:
            event.update(at=event["at"] + by_s, since=event["since"] + by_s)
    tale.replies[-1]["sent_at"] = instant(70.3 + by_s)
    tale.seen[-1]["at"] = tale.requests[-1]["at"] = 70.2 + by_s


def reply_is_limited_in_calm(tale: Tale, fault: str | None = "limit") -> None:
    """The same, since its provider wants no more for a while: the fake has said so, by its journal."""
    reply_waits_in_calm(tale)
    tale.ask("send", 70.12, tale.replies[-1]["id"], fault=fault)
    tale.requests.insert(-1, tale.requests.pop())
    tale.note("out_park", 70.14, since=70.13, pid=1, user_id=USER, token="out 1:7.05", delay_s=3.0, is_parked=True)


def parked_without_reason(tale: Tale) -> None:
    """Message 6 begins three seconds after it could have, since the service has parked its lane."""
    wait_in_calm(tale)
    tale.note("park", 60.03, since=60.02, pid=1, user_id=USER, token="1:5.5", delay_s=5.0, is_parked=True)


def given_twice(tale: Tale) -> None:
    tale.find("lease", token="1:6").update(fence=5)
    tale.fault(45, 45.1, name="step-clock", target="redis/clock")


def given_again_by_a_redis_that_lost_its_counter(tale: Tale) -> None:
    """The clock was set back, then the counter was lost: a fence comes again, to a lease that ends without an act."""
    given_twice(tale)
    tale.find("lease", token="1:6").update(fence=6)
    tale.fault(48, 48.1, name="flush-redis", target="redis")
    tale.note("lease", 66, since=65.9, pid=2, user_id=USER, token="2:5", fence=5, taken_over=False)


def decided_late(tale: Tale) -> None:
    """A worker gives up a reply under its old lease, when the next has begun."""
    lane = {"pid": 1, "user_id": USER, "fence": 6.1}
    gone = {"reply_id": tale.replies[5]["id"], "attempt": 1, "deed": "give_up", "outcome": "settled"}
    tale.note("out_settle", 75.0, since=74.9, **lane, **gone)


def replies_given_on(tale: Tale) -> None:
    """The lease of a lane of replies ends again, when a later one is in use."""
    release = tale.find("out_finish", token="out 1:6.1")
    tale.events.append({**release, "since": 70.2, "at": 70.21, "released": "released"})


def accepted_twice(tale: Tale) -> None:
    """The provider itself made two of one request."""
    tale.seen.append({**tale.seen[2], "copy": 2})


MAY_HAPPEN = [
    lost_answer, late_note, refused_run, redriven, ended_by_operator, swept, overtaken, explained_overlap,
    given_up_run, busy_slots, own_failure, slow_in_frozen_process, kept_waiting_by_a_fault, own_row_locked,
    redis_is_full, missed_fault, given_up, accepted_twice, together, cut_call, second_call,
    forgotten_call, evicted_call, given_up_of_the_dead,
    given_up_as_it_came_late, overlap_after_a_frozen_helper, late_start_after_a_freeze,
    given_again_by_a_redis_that_lost_its_counter, pool_went_silent, late_on_a_crowded_machine, reply_taken_in_time,
    reply_left_by_its_status,
    reply_is_limited_in_calm, failure_noted_late, places_taken,
    busy_slots_of_those_there, busy_slots_before_another_came, lost_twice,
    a_worker_starts, a_web_starts, refused_after_a_silence, widened_in_flight,
]  # fmt: skip


@pytest.mark.parametrize("happens", MAY_HAPPEN)
def test_what_may_happen_breaks_no_promise(tale: Tale, happens: Callable[[Tale], None]) -> None:
    happens(tale)
    assert [violation.sentence for violation in all_violations(tale.evidence())] == []


# what must not


def die(tale: Tale, seq: int) -> None:
    """A message dies in its third run."""
    tale.messages[seq - 1] |= {"state": "dead", "attempts": 3}
    run = tale.find("start", message_id=message_id(seq))
    for nr in (1, 2):
        tale.note(**{**run, "at": run["at"] - nr * 0.001, "run": f"{run['run']} before, {nr}"})
    tale.find("commit", message_id=message_id(seq)).update(kind="fail", outcome="dead")
    run_ended(tale, seq, "raised")
    unanswered(tale, seq)


def run_ended(tale: Tale, seq: int, result: str) -> None:
    tale.find("end", run=tale.find("start", message_id=message_id(seq))["run"])["result"] = result


def charged(tale: Tale, result: str) -> None:
    """An attempt of message 6 failed; its second run went well."""
    tale.turn(6, 59.8, 1, 5.5, "session-2")
    first = tale.find("commit", fence=5.5)
    first.update(kind="fail", outcome="retry")
    tale.find("end", run="run-6-1-59.8")["result"] = result


def unhandled(tale: Tale, seq: int) -> None:
    """A message is committed without the bot."""
    unanswered(tale, seq)
    tale.events = [one for one in tale.events if one["kind"] != "start" or one["seq"] != seq]


def unanswered(tale: Tale, seq: int) -> None:
    keys = {reply["id"] for reply in tale.replies if reply["turn_seq"] == seq}
    tale.replies = [reply for reply in tale.replies if reply["turn_seq"] != seq]
    tale.seen = [one for one in tale.seen if one["key"] not in keys]
    tale.outputs = [output for output in tale.outputs if output["message_id"] != message_id(seq)]
    session = next(one for one in tale.sessions if one["id"] == tale.messages[seq - 1]["session_id"])
    session["state"]["n"] -= 1
    tale.user["state"]["n"] -= 1
    for reply in tale.replies:
        said_, is_state, count = reply["text"].partition(" n=")
        if is_state and reply["session_id"] == session["id"] and reply["turn_seq"] > seq:
            reply["text"] = f"{said_} n={int(count) - 1}"


def output_of(seq: int) -> Any:
    return {"name": "seen", "data": {"key": f"{message_id(seq)}:{seq}", "seq": seq}}


def overlap(tale: Tale) -> None:
    """Message 6 runs twice at once; the second commit comes too late."""
    tale.find("end", run="run-6-1-60.02")["at"] = 60.07
    run = {"pid": 6, "user_id": USER, "sender": SENDER, "message_id": message_id(6), "seq": 6}
    tale.note("start", 60.06, run="again", **run, session_id="session-2", text=text_of(6))
    tale.note("end", 60.08, run="again", pid=6, result="ok")


def wait_in_calm(tale: Tale) -> None:
    """Message 6 begins three seconds after it could have."""
    for event in tale.events:
        if 60.015 < event["at"] < 60.5:
            event["at"] += 3
            if "since" in event:
                event["since"] += 3
    tale.messages[5]["processed_at"] = tale.replies[-2]["committed_at"] = instant(63.1)
    tale.replies[-2]["sent_at"] = instant(63.3)
    tale.note("calm", 55, phase="begin")
    tale.note("calm", 69, phase="end")


def refused_while_locked(tale: Tale, user_id: str) -> None:
    """Message 7 was answered 503 before, while somebody's row was locked."""
    refused_while(tale, "lock-row", target="users/row")
    tale.find("fault", phase="end")["user_id"] = user_id


def stayed(tale: Tale) -> None:
    """A worker whose loop is blocked goes on living."""
    tale.fault(60, 75, name="block-loop", pids=[1])
    tale.find("fault", phase="end")["survived"] = [1]


def two_slots(tale: Tale) -> None:
    """Message 7 runs in the process in which message 6 hangs."""
    tale.find("end", run="run-6-1-60.02")["at"] = 75.0


def never_begun(tale: Tale) -> None:
    """A message is charged although its handler never began: another one's blocked the loop."""
    charged(tale, "ok")
    tale.events = [one for one in tale.events if one.get("run") != "run-6-1-59.8"]


def change(rows: str, nr: int, **fields: Any) -> Any:
    """Plant different values in a row."""
    return lambda tale: getattr(tale, rows)[nr].update(fields)


def said(kind: str, seq: int, **fields: Any) -> Any:
    """Plant different values in an event of a message."""
    return lambda tale: tale.find(kind, message_id=message_id(seq)).update(fields)


def removed(rows: str, nr: int) -> Any:
    return lambda tale: getattr(tale, rows).pop(nr)


def twice(rows: str, nr: int, **fields: Any) -> Any:
    return lambda tale: getattr(tale, rows).append({**getattr(tale, rows)[nr], **fields})


def left_over(tale: Tale) -> None:
    """A reply still waits when all is settled."""
    tale.replies[-1]["state"] = "pending"
    tale.seen.pop()
    tale.note("read", 90, user_id=USER, replies=tale.replies)
    tale.note("phase", 95, name="settled")


def old_fence(tale: Tale) -> None:
    """The lease of message 3 is older than that of message 2."""
    for event in tale.events:
        if event.get("fence") == 3 or event.get("token") == "1:3":
            event["fence"], event["token"] = 1, "1:1"


def lane_given_on(tale: Tale) -> None:
    """The lease of message 5 ends again, when that of message 6 is in use."""
    release = tale.find("finish", token="1:5")
    tale.events.append({**release, "since": 60.04, "at": 60.05, "released": "released"})


def not_next(tale: Tale) -> None:
    """A redriven message waits while message 7 begins."""
    redriven(tale)
    tale.find("command", name="redrive", phase="end")["at"] = 65.1
    tale.messages[1]["redriven_at"] = instant(65.05)


def never_redriven(tale: Tale) -> None:
    redriven(tale)
    tale.events = [event for event in tale.events if event["kind"] != "command"]


def nobody_ended(tale: Tale) -> None:
    ended_by_operator(tale)
    tale.events = [event for event in tale.events if event["kind"] != "command"]


def end_in_the_middle(tale: Tale) -> None:
    """The end was asked for when message 6 waited, and took effect before message 7 came."""
    ended_by_operator(tale, at=65)


def handled_while_escalated(tale: Tale) -> None:
    tale.command("escalate", 52, 52.1)
    tale.sessions[0] |= {"status": "active"}


def surely_escalated(tale: Tale) -> None:
    tale.command("escalate", 62, 62.1)


def not_escalated(tale: Tale) -> None:
    unhandled(tale, 6)


def paused(tale: Tale) -> None:
    tale.command("pause", 62, 62.1)


def slow_recovery(tale: Tale) -> None:
    """Message 6 waits for 6 s after its worker died."""
    wait_in_calm(tale)
    tale.note("lease", 60.02, user_id=USER, pid=9, token="9:5", fence=5.5, taken_over=False)
    tale.fault(60.02, 60.03, name="kill-worker", pids=[9])
    tale.events = [one for one in tale.events if one["kind"] != "calm"]
    for event in tale.events:
        if 63 < event["at"] < 64:
            event["at"] += 4
            if "since" in event:
                event["since"] += 4
    tale.messages[5]["processed_at"] = instant(67.1)


MUST_NOT_HAPPEN = {
    "one person is two users": ("identity", change("messages", 6, user_id="another")),
    "two people are one user": (
        "identity",
        lambda tale: tale.find("send", delivery="d7")["messages"][0].update(sender="+33990002"),
    ),
    "a message that was answered 2xx is not there": ("acceptance", removed("messages", 6)),
    "a message was never answered": ("acceptance", lambda tale: tale.events.remove(tale.find("ack", delivery="d7"))),
    "a message is invented": ("acceptance", change("messages", 6, external_id="invented")),
    "a message is there twice": ("acceptance", twice("messages", 6, id="copy", seq=8)),
    "a text was changed": ("acceptance", change("messages", 5, text="something else")),
    "an answer named another message": (
        "acceptance",
        lambda tale: tale.find("ack", delivery="d7")["accepted"][0].update(message_id="another"),
    ),
    "two deliveries were new": ("acceptance", lambda tale: tale.post(7, text_of(7), 70.5)),
    "a message was accepted later than answered": ("acceptance", change("messages", 6, accepted_at=instant(70.09))),
    "a message still waits": ("acceptance", change("messages", 6, state="received", processed_at=None)),
    "a message died too early": ("acceptance", change("messages", 6, state="dead", attempts=1)),
    "a number is missing": ("order", change("messages", 6, seq=8)),
    "messages were committed out of order": ("order", change("messages", 5, processed_at=instant(75))),
    "a turn began before its turn": ("order", said("begin", 7, at=60.03)),
    "a redriven message did not run next": ("order", not_next),
    "a message waits again by itself": ("order", never_redriven),
    "a reply is there twice": ("effects", twice("replies", 0, ordinal=2)),
    "a reply is missing": ("effects", removed("replies", 2)),
    "a reply is another": ("effects", change("replies", 0, text="another")),
    "a tool output is there twice": ("effects", twice("outputs", 0)),
    "a tool call has no output": ("effects", change("outputs", 0, data=None)),
    "a state was overwritten": ("effects", lambda tale: tale.sessions[0]["state"].update(n=4)),
    "somebody was told that they are answered, and was not": ("effects", told_for_nothing),
    "waiting is wrong": ("effects", lambda tale: tale.user.update(waiting=1)),
    "a message was committed twice": (
        "effects",
        lambda tale: tale.events.append({**tale.find("commit", message_id=message_id(6)), "pid": 2}),
    ),
    "a commit was lost": ("effects", change("messages", 6, state="dead", attempts=3)),
    "an older fence wrote": ("fences", old_fence),
    "an older fence began": ("fences", said("begin", 6, fence=4)),
    "a fence was given twice": ("fences", lambda tale: tale.find("lease", token="1:6").update(fence=5)),
    "a fence was given twice after a clock was set, and no counter lost": ("fences", given_twice),
    "another's lane was given on": ("fences", lane_given_on),
    "a process acted under another's lease": ("fences", said("begin", 6, pid=77)),
    "a session is open beside another": (
        "sessions",
        change("sessions", 0, status="active", ended_at=None, ended_reason=None),
    ),
    "a message lies in the session before": ("sessions", change("messages", 5, session_id="session-1")),
    "a session was ended by an hour-of-day rule": (
        "sessions",
        change("sessions", 1, status="ended", ended_at=instant(71), ended_reason="end_of_day"),
    ),
    "a session ended when it was noticed": ("sessions", change("sessions", 0, ended_at=instant(50.1))),
    "a session has no message": ("sessions", twice("sessions", 1, id="empty")),
    "nobody asked for the end": ("sessions", nobody_ended),
    "an end took effect at another time": ("sessions", end_in_the_middle),
    "the bot was not asked": ("escalation", not_escalated),
    "the bot was asked while a human had the session": ("escalation", surely_escalated),
    "a reply was withheld": ("escalation", change("replies", 0, state="withheld")),
    "a paused user's message began": ("pauses", paused),
    "the bot was given another text": ("runs", said("start", 3, text="another")),
    "nobody ran the bot": ("runs", lambda tale: tale.events.remove(tale.find("start", message_id=message_id(3)))),
    "replies were seen in another order": ("provider", change("seen", 2, n=99)),
    "something was seen that is no reply": ("provider", change("seen", 0, key="unknown")),
    "a reply that was sent was not seen": ("provider", lambda tale: tale.seen.pop(2)),
    "a reply was seen twice": ("provider", twice("seen", 2, n=99)),
    "a reply that was withheld was seen": ("provider", change("replies", 2, state="withheld")),
    "a reply that was lost twice was seen": ("provider", seen_although_absent),
    "a reply was given up although its provider can be asked": (
        "provider",
        change("replies", 2, state="unknown", given_up_at=instant(50)),
    ),
    "a reply failed whose provider was asked once": ("provider", lambda tale: lost_twice(tale, (35,))),
    "a reply failed that was sent once": ("provider", lambda tale: lost_twice(tale, is_sent_again=False)),
    "a reply failed that was sent again unasked": ("provider", lambda tale: lost_twice(tale, (39, 45))),
    "a reply failed before its provider was asked again": ("provider", lambda tale: lost_twice(tale, (35, 55))),
    "a reply was given up after an answer": ("provider", given_up_after_an_answer),
    "a reply was given up that came late, and not too late": (
        "provider",
        lambda tale: given_up_as_it_came_late(tale, late_s=1),
    ),
    "a reply was given up since another process was killed": (
        "provider",
        lambda tale: given_up_of_the_dead(tale, killed=8),
    ),
    "a reply failed that nobody refused": ("provider", change("replies", 2, state="failed", failure="away")),
    "a reply is left": ("provider", left_over),
    "the service shows something else": (
        "provider",
        lambda tale: tale.note("read", 90, user_id=USER, replies=[]),
    ),
    "a dead worker's lane stayed": ("recovery", slow_recovery),
    "two handlers ran at once": ("overlaps", overlap),
    "two handlers ran at once when another worker was frozen": ("overlaps", overlap_beside_a_frozen_worker),
    "a message waited beside a free slot": ("calm", wait_in_calm),
    "a lane was parked in calm for no reason": ("calm", parked_without_reason),
    "a reply waited beside a free slot": ("calm", reply_waits_in_calm),
    "a reply waited since its lane was parked for no reason": (
        "calm",
        lambda tale: reply_is_limited_in_calm(tale, None),
    ),
    "a dead worker's lane of replies stayed": ("recovery", reply_left_with_the_dead),
    "an older fence marked a reply": ("fences", lambda tale: tale.mark(tale.replies[3]["id"], 40.0, 1, fence=1)),
    "an older fence decided about a reply": ("fences", decided_late),
    "another's lane of replies was given on": ("fences", replies_given_on),
    "a lane of replies was leased twice under a fence": (
        "fences",
        lambda tale: tale.find("out_lease", fence=7.1).update(fence=6.1),
    ),
    "a process marked a reply under another's lease": (
        "fences",
        lambda tale: tale.find("out_begin", fence=7.1).update(pid=77),
    ),
    "a worker that could not work stayed": ("stuck", stayed),
    "a user held two slots of a process": ("stuck", two_slots),
    "a message was charged for what its handler could not read": ("blame", lambda tale: charged(tale, "unread")),
    "a message was charged for a slow loop": ("blame", lambda tale: charged(tale, "ok")),
    "a message was charged and never ran": ("blame", never_begun),
    "a failure was counted twice": ("blame", lambda tale: tale.messages[2].update(attempts=1)),
    "a delivery was answered late in peace": (
        "intake",
        lambda tale: tale.find("ack", delivery="d7").update(at=73.0),
    ),
    "a delivery was refused because of another's row": (
        "intake",
        lambda tale: refused_while_locked(tale, "somebody else"),
    ),
    "a delivery was refused because Redis was full": ("intake", lambda tale: refused_while(tale, "full-redis")),
    "a delivery was refused when all that went silent was given up": (
        "intake",
        lambda tale: refused_while(tale, "silence", target="postgres-proxy", until=61),
    ),
    "a delivery was refused long after Postgres was a black hole": (
        "intake",
        lambda tale: refused_while(tale, "black-hole", target="postgres-proxy", until=62.5),
    ),
    "a delivery was answered late while the other web was frozen": (
        "intake",
        lambda tale: kept_waiting_by_a_fault(tale, "web-2/head", "freeze-web"),
    ),
    "a delivery was answered late while a worker was frozen": (
        "intake",
        lambda tale: kept_waiting_by_a_fault(tale, "worker-1/process", "freeze-worker"),
    ),
    "a delivery was answered late after a silence that reaches poolers alone": (
        "intake",
        lambda tale: pool_went_silent(tale, "web-2"),
    ),
    "a delivery was answered late on a machine that has little to do": (
        "intake",
        lambda tale: late_on_a_crowded_machine(tale, ready_each=1.2),
    ),
    "a delivery was refused by a web that is there": ("intake", lambda tale: a_web_starts(tale, "503")),
    "a kind of fault never found its target": (
        "coverage",
        lambda tale: places_taken(tale, is_taken=False),
    ),
    "a kind of fault never struck": ("coverage", lambda tale: tale.find("setup").update(planned={"cut": 3})),
    "something is left of who was forgotten": (
        "forgetting",
        lambda tale: tale.leftovers.update(remembered=["messages has u012.says.1"]),
    ),
    "what a colleague wrote is lost": ("echoes", lambda tale: tale.command("echo", 62, 62.1)),
    "a process was left": ("leftovers", lambda tale: tale.leftovers.update(orphans=["1 worker"])),
    "a message is in two batches": ("batches", in_two),
    "nobody ran what was answered together": ("batches", never_together),
    "a batch grew when it began again": ("batches", widened),
    "a turn was committed beside a newer message": ("batches", committed_beside_newer),
    "turns were thrown away for ever": ("batches", thrown_away_too_often),
    "a model was asked for what was kept": ("batches", asked_again),
    "a model was asked again, and nothing had cut its answer": ("calls", lost_call),
    "a kill of another process cut no call": ("calls", lost_call_beside_a_kill),
    "a reply is less than its provider has said": (
        "provider",
        lambda tale: tale.told.append((tale.replies[0]["id"], "read")),
    ),
    "nobody looked": ("leftovers", lambda tale: setattr(tale, "leftovers", None)),
}


@pytest.mark.parametrize("planted", MUST_NOT_HAPPEN)
def test_the_checker_sees_what_must_not_happen(tale: Tale, planted: str) -> None:
    promise, plant = MUST_NOT_HAPPEN[planted]
    plant(tale)
    assert promise in {violation.promise for violation in all_violations(tale.evidence())}


def test_a_dead_workers_lane_may_stay_while_no_worker_is_there(tale: Tale) -> None:
    slow_recovery(tale)
    for event in tale.events:
        if event["at"] > 60.03 and event["kind"] not in {"send", "ack"}:
            event["pid"] = 2  # it has first to start
    assert all_violations(tale.evidence()) == []


def test_a_dead_workers_lane_may_stay_while_the_slots_are_taken_of_those_that_are_there(tale: Tale) -> None:
    slow_recovery(tale)
    others_hold(tale, (2, 5, 40), (3, 70, 71), *[(1, 60.03, 67.0)] * 3)
    assert all_violations(tale.evidence()) == []


def test_a_dead_workers_lane_may_stay_while_the_slots_of_others_wait_for_a_slow_lease(tale: Tale) -> None:
    slow_recovery(tale)
    others_hold(tale, (2, 5, 40), (3, 70, 71), *[(1, 66.0, 67.0)] * 3)
    for event in tale.events:
        if event["kind"] == "lease" and event["at"] == 66.0:
            event["since"] = 60.03
    assert all_violations(tale.evidence()) == []


def test_every_check_has_a_planted_fault() -> None:
    checks = {check.__module__.rpartition(".")[2] for check in CHECKS}
    assert checks == {promise for promise, _ in MUST_NOT_HAPPEN.values()}


# the report, and time


def test_a_call_that_a_kill_cut_is_counted_apart(tale: Tale) -> None:
    cut_call(tale)
    counted = report.numbers(tale.evidence())
    assert counted["model_calls"] == "1 for 1 steps, and 1 cut, 1 of them after the answer"


def test_the_report_tells_the_first_violation_as_a_history(tale: Tale) -> None:
    tale.fault(55, 56)
    tale.messages[5]["text"] = text_of(5)
    evidence = tale.evidence()
    said_ = report.render(evidence, all_violations(evidence))
    assert "broken promises" in said_
    assert f"user {USER} on {CHANNEL}" in said_
    assert "freeze-worker of worker-1/process begins" in said_
    assert report.as_json(evidence, [])["numbers"]["messages"] == 7


def test_spans_measure_what_they_cover() -> None:
    spans = Spans([(1, 2), (4, 6), (5, 8), (20, float("inf"))])
    assert spans.covered_s(0, 10) == 5
    assert spans.covered_s(1.5, 4.5) == 1
    assert spans.free_s(0, 5) == 3
    assert spans.covered_s(30, 31) == 1
    assert (spans.touches(2, 3), spans.touches(3, 3.5), spans.touches(7, 9)) == (True, False, True)
    assert (spans.contains(4, 8), spans.contains(3, 8)) == (True, False)
    assert [tuple(span) for span in spans.within(1.5, 5)] == [(1.5, 2), (4, 5)]


def test_a_crowd_is_so_many_at_once() -> None:
    assert [tuple(span) for span in crowded([(0, 5), (1, 3), (2, 9), (4, 6)], 3)] == [(2, 3), (4, 5)]


def test_the_report_says_how_much_was_judged(tale: Tale) -> None:
    reply_taken_in_time(tale)
    others_hold(tale, (1, 90, 91))
    assert judged(tale) == ("1 of 1 lanes of the dead", "7 of 7 runs", "7 of 7 deliveries")


def test_the_report_says_what_faults_have_excused(tale: Tale) -> None:
    reply_taken_in_time(tale)
    others_hold(tale, (1, 90, 91))
    tale.fault(70, 85, name="freeze-postgres", target="postgres/head")
    tale.fault(60, 61, name="flush-redis", target="redis")
    assert judged(tale) == ("0 of 1 lanes of the dead", "6 of 7 runs", "5 of 7 deliveries")


def judged(tale: Tale) -> tuple[str, str, str]:
    counted = report.numbers(tale.evidence())
    return counted["recoveries_judged"], counted["overlaps_looked_for"], counted["answers_judged"]


def test_requests_that_went_wrong_tell_whether_a_fault_of_an_api_has_struck(tale: Tale) -> None:
    tale.find("setup")["planned"] = {"api-errors": 3}
    tale.fault(45, 47, name="api-errors", target="providers-fakes/answers")
    assert [violation.promise for violation in all_violations(tale.evidence())] == ["coverage"]
    tale.ask("presence", 46, fault="503")
    assert all_violations(tale.evidence()) == []


def test_how_many_threads_are_ready_to_run_is_read_from_the_machine() -> None:
    assert ready("0.42 0.40 0.39 7/312 41234") == 6
