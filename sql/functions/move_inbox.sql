-- Moves what waits of one user behind what another has: see merge_users. Nothing that moves lies before the winner's
-- time; ends, sessions and batches of the loser do not count where it waits now, but what was to run alone still is, and
-- what was to hand its session to a human still does. The caller holds both users' row locks.
-- Returns [{id, seq}, …].
CREATE OR REPLACE FUNCTION move_inbox(p_winner users, p_loser users, p_at timestamptz) RETURNS json
LANGUAGE sql AS $$
    WITH moved AS (
        UPDATE inbox i
           SET user_id = p_winner.id, seq = p_winner.last_seq + n.nr, session_id = NULL, redriven_at = NULL,
               accepted_at = greatest(i.accepted_at, p_winner.last_accepted_at),
               end_at = NULL, end_reason = NULL, puts_state_aside = false, has_steps = false,
               batch_last = CASE WHEN i.batch_last = i.seq THEN p_winner.last_seq + n.nr END
          FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS nr FROM inbox WHERE user_id = p_loser.id) n
         WHERE i.user_id = p_loser.id AND i.seq = n.seq
        RETURNING i.id, i.seq, i.channel, i.external_id
    ), known AS (
        UPDATE accepted_deliveries d SET user_id = p_winner.id, seq = m.seq
          FROM moved m WHERE d.channel = m.channel AND d.external_id = m.external_id
    ), step AS (
        DELETE FROM steps WHERE user_id = p_loser.id
    ), payload AS (
        UPDATE payloads p SET user_id = p_winner.id FROM moved m WHERE p.message_id = m.id
    )
    SELECT coalesce(json_agg(json_build_object('id', id, 'seq', seq) ORDER BY seq), '[]') FROM moved;
$$;
