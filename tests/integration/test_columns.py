"""What waited becomes a line of history with everything that it had, however many columns that is."""

from onelane.bootstrap import Services
from tests.by_hand import ByHand
from tests.rows import Rows

RARE = {
    "kind": "'event'",
    "event": "'reaction'",
    "button": "'yes'",
    "closes": "true",
    "attachments": """'[{"kind": "image"}]'""",
    "parts": """'{"location": {}}'""",
    "raw": """'{"of": "the provider"}'""",
    "has_payload": "true",
    "quoted": "'m1'",
    "author": """'{"name": "Alice"}'""",
    "mentioned": "true",
    "repairs": """'["nul"]'""",
    "edited_text": "'other'",
    "deleted_at": "now()",
    "route": """'{"from": "+15550100"}'""",
    "traceparent": "'00-1-2-01'",
    "sent_at": "now()",
    "attempts": "2",
    "deaths": "1",
    "last_error": "'no'",
}
"""What few messages have, each by itself beside what all have."""


def test_a_line_has_all_that_its_message_had_while_it_waited(services: Services, rows: Rows) -> None:
    user = ByHand(services.database)
    for column, value in RARE.items():
        user.say()
        rows.ask(f"UPDATE inbox SET {column} = {value} WHERE user_id = %s RETURNING seq", user.user_id)
        waiting = rows.ask("SELECT to_jsonb(i) AS line FROM inbox i WHERE user_id = %s", user.user_id).line
        user.turn(replies=[{"text": "hello", "attachments": [{"kind": "file"}]}])
        line, reply = rows.ask(
            "SELECT to_jsonb(m) AS line, to_jsonb(r) AS reply FROM messages m JOIN messages r USING (user_id, turn_seq)"
            " WHERE m.id = %s AND r.ordinal = 1",
            waiting["id"],
        )
        differing = {name for name in waiting.keys() & line.keys() if waiting[name] != line[name]}
        assert differing <= {"session_id"}, column
        assert (reply["text"], reply["attachments"], reply["state"]) == ("hello", [{"kind": "file"}], "pending")
        assert reply["route"] == waiting["route"]
