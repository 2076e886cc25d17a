-- Decides whether a turn is thrown away for what came meanwhile: a waiting message that may join its batch, unless the
-- batch is full, or turns of it were thrown away often enough. Then the batch is open again, and the results of its steps
-- are forgotten.
-- p_turn: see settle_turn. Asked again after that it answers the same, and counts nothing twice.
-- The caller holds the user's row lock, has compared fence and version, and stores the fence of who throws away.
CREATE OR REPLACE FUNCTION supersede_batch(p_user users, p_lowest inbox, p_turn jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_superseded integer := (p_turn -> 'interrupt' ->> 'superseded')::integer;
    v_last bigint := (p_turn -> 'seqs' ->> -1)::bigint;
    v_room integer;
BEGIN
    IF p_lowest.superseded > v_superseded AND p_lowest.batch_last IS DISTINCT FROM v_last THEN
        RETURN true;
    ELSIF v_superseded >= (p_turn -> 'interrupt' ->> 'most')::integer THEN
        RETURN false;
    END IF;
    p_lowest.batch_last := v_last;
    SELECT batch_max - jsonb_array_length(p_turn -> 'seqs') INTO v_room FROM channel_policies WHERE channel = p_user.channel;
    IF last_of_batch(
            p_user, p_lowest,
            (SELECT started_at FROM conversation_sessions WHERE id = (p_turn ->> 'session_id')::uuid),
            least(1, greatest(0, v_room))) = v_last THEN
        RETURN false;
    END IF;
    UPDATE inbox SET batch_last = NULL, superseded = superseded + 1, has_steps = false
     WHERE user_id = p_user.id AND seq = p_lowest.seq;
    IF p_lowest.has_steps THEN
        DELETE FROM steps WHERE message_id = p_lowest.id;
    END IF;
    RETURN true;
END $$;
