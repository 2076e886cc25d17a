-- Takes what has arrived since into a running batch, as far as it may join: its turn answers it too, and settles it. A
-- turn that runs again after a crash finds it in its batch.
--
-- p_turn: {user_id, fence, version, seqs: the batch's numbers, session_id}. Locks the user's row. Whoever claims has
-- written: a turn under an older fence claims and commits no more.
-- Returns {outcome, messages: what was added, in order}. outcome: claimed; already (the batch is settled); fenced; stale.
CREATE OR REPLACE FUNCTION claim_newer(p_turn jsonb) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user((p_turn ->> 'user_id')::uuid);
    v_first bigint := (p_turn -> 'seqs' ->> 0)::bigint;
    v_before bigint := (p_turn -> 'seqs' ->> -1)::bigint;
    v_lowest inbox;
    v_last bigint;
BEGIN
    SELECT * INTO v_lowest FROM inbox WHERE user_id = v_user.id AND seq = v_first;
    IF v_lowest.id IS NULL THEN
        RETURN json_build_object('outcome', 'already', 'messages', '[]'::json);
    ELSIF is_fenced(v_user.fence, (p_turn ->> 'fence')::bigint) THEN
        RETURN json_build_object('outcome', 'fenced', 'messages', '[]'::json);
    ELSIF v_user.version <> (p_turn ->> 'version')::bigint THEN
        RETURN json_build_object('outcome', 'stale', 'messages', '[]'::json);
    END IF;
    v_lowest.batch_last := greatest(v_lowest.batch_last, v_before);
    v_last := last_of_batch(
        v_user, v_lowest,
        (SELECT started_at FROM conversation_sessions WHERE id = (p_turn ->> 'session_id')::uuid), 100);
    IF v_last > v_before THEN
        UPDATE inbox SET batch_last = v_last WHERE user_id = v_user.id AND seq = v_first AND batch_last IS DISTINCT FROM v_last;
        UPDATE users SET fence = (p_turn ->> 'fence')::bigint WHERE id = v_user.id;
    END IF;
    RETURN json_build_object('outcome', 'claimed', 'messages', coalesce((
        SELECT json_agg(line_of(i, coalesce(p.raw, i.raw)) ORDER BY i.seq)
          FROM inbox i LEFT JOIN payloads p ON p.message_id = i.id
         WHERE i.user_id = v_user.id AND i.seq > v_before AND i.seq <= v_last), '[]'));
END $$;
