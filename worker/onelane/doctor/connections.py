"""Check of the connections: the servers must allow as many as the settings may open."""

from onelane.doctor.finding import Deployment, Finding, ok, warning
from onelane.operations.snapshot import Survey
from onelane.postgres.budget import budget

LIMITS = """
SELECT least(nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1),
             current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true)::int, 0)) AS allowed,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used
  FROM pg_roles r, pg_database d
 WHERE r.rolname = current_user AND d.datname = current_database()
"""


def connections_suffice(deployment: Deployment) -> Finding:
    """Check that the workers that are alive and one web process get their connections, also twice during a deploy."""
    settings = deployment.settings
    workers = max(1, Survey(deployment.lanes).snapshot().workers_alive)
    limits = deployment.database.row(LIMITS)
    most = budget(settings, workers=workers)
    wanted = {"Postgres": most.postgres, "Redis": most.redis}
    allowed = {
        "Postgres": limits.allowed if limits else None,
        "Redis": deployment.lanes.scripts.setting("clients", "maxclients", "maxclients"),
    }
    used = {
        "Postgres": limits.used if limits else "?",
        "Redis": deployment.lanes.scripts.setting("clients", "connected_clients") or "?",
    }
    each = "; ".join(f"{name}: up to {wanted[name]} of {allowed[name] or '?'}, now {used[name]}" for name in wanted)
    found = f"{each} ({workers} worker{'s' if workers > 1 else ''}, 1 web, twice during a deploy)"
    short = [name for name in wanted if allowed[name] is not None and wanted[name] > int(allowed[name])]
    if not short:
        return ok(found)
    return warning(f"{' and '.join(short)} may refuse connections. {found}", "lower DB_POOL_MAX or REDIS_POOL_MAX")
