"""What Postgres holds of a user: the one place where tests read its tables."""

from uuid import UUID

from onelane.bootstrap import Services


def session_of(services: Services, user_id: UUID) -> UUID:
    """Resolve the session of a user's next turn; it is opened if the policy says so."""
    row = services.database.row("SELECT get_or_create_session(%s) AS id", (user_id,))
    assert row is not None
    return UUID(str(row.id))
