"""Whose fault it is that Postgres refuses: the turn's, which costs an attempt, or not the turn's, which costs time."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.config import Settings
from onelane.errors import StoreUnavailable
from onelane.postgres.migrations import shipped_code
from tests.conftest import Accept, slow_after
from tests.rows import Rows
from tests.working_off import work_off


@contextmanager
def _refusing(services: Services, function: str, refusal: str, of: str = "effects") -> Iterator[None]:
    """Let `function` refuse every turn with effects, or with a failure, or every lease, by a statement of plpgsql."""
    body = shipped_code()[f"functions/{function}"]
    argument = {"settle_turns": "p_turns -> 0", "begin_turn": "p_lease"}.get(function, "p_turn")
    refusing = body.replace("\nBEGIN\n", f"\nBEGIN\n    IF {argument} ? '{of}' THEN {refusal} END IF;\n", 1)
    assert refusing != body
    services.database.rows("DROP SEQUENCE IF EXISTS tries")
    services.database.rows("CREATE SEQUENCE tries")  # counts on, whatever is rolled back
    services.database.rows(refusing)
    try:
        yield
    finally:
        services.database.rows(body)


def _twice(sqlstate: str) -> str:
    """Refuse two tries: as many as one call makes while Postgres is away."""
    return f"IF nextval('tries') <= 2 THEN RAISE 'planted' USING ERRCODE = '{sqlstate}'; END IF;"


@pytest.mark.parametrize("function", ["settle_turn", "settle_turns"])
@pytest.mark.parametrize("sqlstate", ["54000", "22P05", "23514", "P0001"])
def test_what_postgres_refuses_of_a_turn_is_its_failed_attempt(
    rows: Rows, services: Services, settings: Settings, accept: Accept, function: str, sqlstate: str
) -> None:
    runs: list[str] = []

    def handle(turn: Turn) -> str:
        runs.append(turn.message.text)
        return "refused"

    message = accept("alice")
    with _refusing(services, function, f"RAISE 'planted' USING ERRCODE = '{sqlstate}';"):
        work_off(services, settings.model_copy(update={"attempts_max": 2, "retry_base_s": 0.01}), handle)
    row = rows.message(message.message_id)
    assert (row.state, row.attempts, len(runs)) == ("dead", 2, 2)
    assert sqlstate in row.last_error


@pytest.mark.parametrize("function", ["settle_turn", "settle_turns"])
@pytest.mark.parametrize("sqlstate", slow_after(2, ["40P01", "55P03", "53200", "57014", "58030"]))
def test_what_is_not_the_turns_fault_keeps_its_effects_and_counts_nothing(
    rows: Rows, services: Services, settings: Settings, accept: Accept, function: str, sqlstate: str
) -> None:
    runs: list[str] = []

    def handle(turn: Turn) -> str:
        runs.append(turn.message.text)
        return "answered"

    message = accept("alice")
    with _refusing(services, function, _twice(sqlstate)):
        work_off(services, settings, handle)
    row = rows.message(message.message_id)
    assert (row.state, row.attempts, len(runs)) == ("processed", 0, 1)


@pytest.mark.parametrize(("of", "state"), [("effects", "processed"), ("failure", "dead")])
@pytest.mark.parametrize(("commit_hold_s", "runs_by_then"), [(60, 1), (0, 2)])
def test_what_came_of_a_turn_outlasts_an_outage_as_long_as_it_is_kept(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    of: str,
    state: str,
    commit_hold_s: float,
    runs_by_then: int,
) -> None:
    runs: list[str] = []

    def handle(turn: Turn) -> str:
        runs.append(turn.message.text)
        if of == "failure":
            raise ValueError
        return "answered"

    message = accept("alice")
    with _refusing(services, "settle_turn", _twice("53100"), of):
        work_off(services, settings.model_copy(update={"attempts_max": 1, "commit_hold_s": commit_hold_s}), handle)
    row = rows.message(message.message_id)
    assert (row.state, row.attempts, len(runs)) == (state, int(of == "failure"), runs_by_then)


def test_a_death_counts_also_if_the_first_begin_after_it_meets_an_outage(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    message = accept("alice")
    assert services.lanes.lease("dead", 0, 1, ttl_s=0.05).leases
    with _refusing(services, "begin_turn", _twice("53100"), of="fence"):
        work_off(services, settings, lambda turn: f"{turn.message.deaths} deaths")
    assert rows.texts(message.user_id) == ["1 deaths"]


@pytest.mark.parametrize("name", ["", "n" * 3_000, "a\0b", "\ud800", 7], ids=["empty", "long", "NUL", "half", "number"])
def test_a_tool_output_whose_name_cannot_be_stored_is_refused_as_it_is_saved(
    rows: Rows, services: Services, settings: Settings, accept: Accept, name: str
) -> None:
    message = accept("alice")
    work_off(services, settings.model_copy(update={"attempts_max": 1}), lambda turn: turn.save_tool_output(name, 1))
    row = rows.message(message.message_id)
    assert (row.state, row.attempts) == ("dead", 1)
    assert "BadResult" in row.last_error or "name" in row.last_error


def test_a_failure_that_cannot_be_stored_as_it_is_counts_too(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    def handle(turn: Turn) -> str:
        raise type("Odd\0\ud800", (Exception,), {})

    message = accept("alice")
    work_off(services, settings.model_copy(update={"attempts_max": 1}), handle)
    assert rows.message(message.message_id).state == "dead"


@pytest.mark.slow
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_locked_table_under_a_handlers_reads_is_no_attempt(
    rows: Rows, services: Services, settings: Settings, accept: Accept, is_wrapped: bool
) -> None:
    runs: list[str] = []

    def handle(turn: Turn) -> str:
        runs.append(turn.message.text)
        if len(runs) > 1:
            return "answered"
        with psycopg.connect(settings.database_url) as holder:
            holder.execute(f"LOCK TABLE {'tool_calls' if is_wrapped else 'messages'} IN ACCESS EXCLUSIVE MODE")
            try:
                return str(turn.tool_output("found") if is_wrapped else turn.history())
            except StoreUnavailable as error:
                if is_wrapped:
                    raise RuntimeError from error  # as libraries between a tool and its model do
                raise

    message = accept("alice")
    work_off(services, settings, handle)
    assert len(runs) == 2
    assert rows.message(message.message_id).attempts == 0
