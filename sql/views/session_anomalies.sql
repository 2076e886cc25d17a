-- What must not be: one row for each fault of a user's sessions, with the time at which it arose. Empty means healthy.
--
-- kind:
--   opened_early      opened within 10 s of the last message of the user's session before, although no command ended
--                     that one and no boundary of the policy lies between (as the policy is now: a change may show)
--   two_open          open beside another open session of the user
--   overlap           begins before an earlier session of the user has ended
--   outside           a message lies before its session's start, or after its end or its last message (an event or an
--                     echo may, and what was said from outside a turn: it lies in the session that was open when it
--                     came, and does not keep it open)
--   foreign_session   a message or tool call lies in the session of another user, or its message in another session
-- "WHERE at > …" reaches the index of each branch: by the start of sessions, the time of messages, of tool calls.
-- Before a migration may change a column named here, it must drop the view; the next run of the functions restores it.
CREATE OR REPLACE VIEW session_anomalies AS
SELECT 'opened_early' AS kind, s.user_id, s.id AS session_id, s.started_at AS at,
       format('%s s after the last message of session %s, which ended by %s',
              extract(epoch FROM s.started_at - before.last_message_at)::numeric(12, 3), before.id,
              coalesce(before.ended_reason, 'nothing: it is open')) AS detail
  FROM conversation_sessions s
 CROSS JOIN LATERAL (
       SELECT * FROM conversation_sessions p
        WHERE p.user_id = s.user_id AND (p.started_at, p.created_at) < (s.started_at, s.created_at)
        ORDER BY p.started_at DESC, p.created_at DESC LIMIT 1) before
 WHERE s.started_at - before.last_message_at <= interval '10 s'
   AND coalesce(before.ended_reason, '') NOT IN ('user_request', 'handler', 'operator')
   AND NOT (before.ended_at <= s.started_at AND is_policy_end(before::conversation_sessions))
UNION ALL
SELECT 'two_open', s.user_id, s.id, s.started_at, format('session %s is open too', other.id)
  FROM conversation_sessions s
  JOIN conversation_sessions other
    ON other.user_id = s.user_id AND other.status <> 'ended' AND (other.started_at, other.id) < (s.started_at, s.id)
 WHERE s.status <> 'ended'
UNION ALL
-- An ended session is [started_at, ended_at): empty when its only message ended it. An open one has no end.
SELECT 'overlap', s.user_id, s.id, s.started_at,
       format('session %s lasted from %s to %s', other.id, other.started_at, coalesce(other.ended_at::text, 'now'))
  FROM conversation_sessions s
  JOIN conversation_sessions other
    ON other.user_id = s.user_id AND other.id <> s.id AND other.started_at <= s.started_at
   AND coalesce(other.ended_at, 'infinity') > s.started_at
   AND (other.started_at < s.started_at
        OR (coalesce(s.ended_at, 'infinity') > s.started_at AND other.id < s.id))
UNION ALL
SELECT 'outside', m.user_id, m.session_id, m.accepted_at,
       format('message %s lies outside %s to %s', m.id, s.started_at, coalesce(s.ended_at, s.last_message_at))
  FROM messages m JOIN conversation_sessions s ON s.id = m.session_id
 WHERE m.kind = 'message' AND (m.direction = 'in' OR m.external_id IS NULL)
   AND (m.accepted_at < s.started_at OR m.accepted_at > s.last_message_at OR m.accepted_at > s.ended_at)
UNION ALL
SELECT 'foreign_session', m.user_id, m.session_id, m.accepted_at,
       format('message %s lies in a session of user %s', m.id, s.user_id)
  FROM messages m JOIN conversation_sessions s ON s.id = m.session_id
 WHERE s.user_id <> m.user_id
UNION ALL
SELECT 'foreign_session', m.user_id, t.session_id, t.created_at,
       format('tool call %s of message %s, whose session is %s', t.id, m.id, m.session_id)
  FROM tool_calls t JOIN messages m ON m.id = t.message_id
 WHERE t.session_id IS DISTINCT FROM m.session_id;
