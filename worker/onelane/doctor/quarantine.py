"""The check of the quarantine."""

from onelane.doctor.finding import Deployment, Finding, ok, warning

SHOWN_MAX = 20
KEPT = f"""
SELECT channel, reasons ->> 0 AS reason, count(*) AS webhooks
  FROM quarantined_payloads GROUP BY channel, reason ORDER BY webhooks DESC, channel, reason LIMIT {SHOWN_MAX}
"""  # noqa: S608 - a constant of ours


def quarantine_is_empty(deployment: Deployment) -> Finding:
    """Check that every verified webhook was understood; others are shown by channel and reason."""
    rows = deployment.database.rows(KEPT)
    if not rows:
        return ok("every verified webhook was understood")
    return warning(
        f"verified webhooks that were not understood: {sum(row.webhooks for row in rows)}",
        "onelane quarantine list; when a release understands them: onelane quarantine replay --all",
        tuple(f"{row.webhooks} of {row.channel}: {row.reason}" for row in rows),
    )
