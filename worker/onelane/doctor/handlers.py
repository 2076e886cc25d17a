"""Checks of the handlers: whether messages fail, wait or have died lately, and whether suspect ones can run apart."""

from onelane.doctor.finding import Deployment, Finding, failed, ok, warning
from onelane.errors import ConfigError
from onelane.operations.dead import LISTED
from onelane.operations.snapshot import Survey
from onelane.turns.isolation import WORKS
from onelane.turns.loading import load_bots

LOOKED_AT_MAX = 100_000
SHOWN_MAX = 20
LATELY = "1 hour"
STATES = {
    "waiting": "wait for what their handler needs",
    "failing": "failed, and are tried again",
    "dead": f"died within the last {LATELY}",
}
REMEDIES = {
    "waiting": "restore the service that is away; the log's turn_postponed shows where",
    "failing": "repair the handler; the log's turn_failed shows where",
    "dead": "onelane dead list",
}
TROUBLED = f"""
SELECT state, kind, count(*) AS messages
  FROM (SELECT CASE WHEN attempts = 0 THEN 'waiting' ELSE 'failing' END AS state,
               substring(last_error FROM '[^\\n]*$') AS kind
          FROM (SELECT attempts, laters, last_error FROM inbox LIMIT {LOOKED_AT_MAX}) _
         WHERE attempts > 0 OR laters > 0
         UNION ALL
        SELECT 'dead', substring(last_error FROM '[^\\n]*$')
          FROM (SELECT processed_at, last_error FROM messages WHERE {LISTED} LIMIT {LOOKED_AT_MAX}) _
         WHERE processed_at > clock_timestamp() - interval '{LATELY}') _
 GROUP BY state, kind ORDER BY state, messages DESC, kind LIMIT {SHOWN_MAX}
"""  # noqa: S608 - constants of ours


def bots_load(deployment: Deployment) -> Finding:
    """Check that every configured handler can be imported here, and be called as it will be."""
    try:
        load_bots(deployment.settings)
    except ConfigError as error:
        return failed(str(error), "repair the bot, or the setting: no worker starts with it")
    return ok(f"handlers that can be called: {', '.join(deployment.settings.handlers)}")


def handlers_succeed(deployment: Deployment) -> Finding:
    """Check that no message waits for a service, fails, or has died lately; each is shown by the kind of its error."""
    rows = deployment.database.rows(TROUBLED)
    if not rows:
        return ok(f"no message fails or waits for what its handler needs; none died within the last {LATELY}")
    return warning(
        f"messages {' or '.join(sorted({row.state for row in rows}))}: {sum(row.messages for row in rows)}",
        "; ".join(remedy for state, remedy in REMEDIES.items() if state in {row.state for row in rows}),
        tuple(f"{row.messages} {STATES[row.state]}: {row.kind}" for row in rows),
    )


def suspects_run_apart(deployment: Deployment) -> Finding:
    """Check that no worker fails to start the process that a suspect message gets: each tries it as it starts."""
    alive = [worker for worker in Survey(deployment.lanes).snapshot().workers if worker.is_alive]
    broken = [worker for worker in alive if worker.isolation not in {WORKS, ""}]
    if not broken:
        tried = sum(worker.isolation == WORKS for worker in alive)
        return ok(f"workers that have started a process for suspect messages: {tried} of {len(alive)}")
    return warning(
        f"{len(broken)} of {len(alive)} workers cannot start the process of its own that a suspect message gets:"
        " such messages wait",
        "let a fresh process import the handler: the worker's log shows, before isolation_broken, why it cannot",
        tuple(f"{worker.name}: {worker.isolation}" for worker in broken[:SHOWN_MAX]),
    )
