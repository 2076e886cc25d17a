-- An end that a command asked for while messages were waiting is noted on the last of them. A note on the user had room
-- for one: a second end, asked for before the worker came to the first, moved it, and two sessions became one.
ALTER TABLE messages
    ADD COLUMN end_at timestamptz,
    ADD COLUMN end_reason text,
    ADD CONSTRAINT a_noted_end_of_a_message_is_whole CHECK ((end_at IS NULL) = (end_reason IS NULL));
UPDATE messages m SET end_at = u.end_at, end_reason = u.end_reason
  FROM users u WHERE m.user_id = u.id AND m.seq = u.end_after_seq;
-- users.end_after_seq, end_at and end_reason are read no more; the release after this one may drop them.

-- Replaced by end_open_session(), get_or_create_session(uuid, timestamptz) and redrive_message(uuid, timestamptz).
DROP FUNCTION IF EXISTS apply_noted_end(users);
DROP FUNCTION IF EXISTS end_session_at(users, conversation_sessions, timestamptz, text);
DROP FUNCTION IF EXISTS get_or_create_session(uuid, timestamptz, bigint);
DROP FUNCTION IF EXISTS redrive_message(uuid);

-- day_start_instant() halves to whole seconds: with fractions it would not end.
ALTER TABLE channel_policies
    ADD CONSTRAINT a_day_starts_on_a_minute CHECK (extract(second FROM day_start) = 0);

-- What session_anomalies walks for "since yesterday". Sessions are inserted once and never change started_at; messages
-- and tool outputs come in the order of time, for which a BRIN of a few pages is enough.
CREATE INDEX conversation_sessions_by_start ON conversation_sessions (started_at);
CREATE INDEX messages_by_time ON messages USING brin (accepted_at) WITH (autosummarize = on);
CREATE INDEX tool_outputs_by_time ON tool_outputs USING brin (created_at) WITH (autosummarize = on);
