-- How many messages each session served. The reuse ratio since yesterday:
--   SELECT sum(turns) / count(*) FROM session_reuse WHERE at > now() - interval '1 day'
CREATE OR REPLACE VIEW session_reuse AS
SELECT s.user_id, s.id AS session_id, s.started_at AS at,
       (SELECT count(*) FROM messages m
         WHERE m.session_id = s.id AND m.direction = 'in' AND m.kind = 'message') AS turns
  FROM conversation_sessions s;
