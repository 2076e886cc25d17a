-- Keeps the result of a step of a batch: the first that comes stands, whoever asks later gets it. p_step: {user_id, fence,
-- version, seqs: the batch's numbers as they were frozen, key, value}; without a value it is only asked for.
-- Written under the user's row lock: not by a turn that may commit no more.
-- Returns {outcome, is_known, value}. outcome: kept; already (the batch is settled); fenced; stale.
CREATE OR REPLACE FUNCTION keep_step(p_step jsonb) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_first bigint := (p_step -> 'seqs' ->> 0)::bigint;
    v_last bigint := (p_step -> 'seqs' ->> -1)::bigint;
    v_message_id uuid;
    v_value jsonb;
BEGIN
    IF p_step ? 'value' THEN
        v_user := lock_user((p_step ->> 'user_id')::uuid);
    ELSE
        SELECT * INTO v_user FROM users WHERE id = (p_step ->> 'user_id')::uuid;
    END IF;
    SELECT id INTO v_message_id FROM inbox WHERE user_id = v_user.id AND seq = v_first;
    IF v_message_id IS NULL THEN
        RETURN json_build_object('outcome', 'already', 'is_known', false);
    ELSIF is_fenced(v_user.fence, (p_step ->> 'fence')::bigint) THEN
        RETURN json_build_object('outcome', 'fenced', 'is_known', false);
    ELSIF v_user.version <> (p_step ->> 'version')::bigint THEN
        RETURN json_build_object('outcome', 'stale', 'is_known', false);
    END IF;
    IF p_step ? 'value' THEN
        INSERT INTO steps (user_id, message_id, last_seq, key, value)
        VALUES (v_user.id, v_message_id, v_last, p_step ->> 'key', p_step -> 'value') ON CONFLICT DO NOTHING;
        UPDATE inbox SET has_steps = true WHERE user_id = v_user.id AND seq = v_first AND NOT has_steps;
    END IF;
    SELECT value INTO v_value FROM steps
     WHERE message_id = v_message_id AND last_seq = v_last AND key = p_step ->> 'key';
    RETURN json_build_object('outcome', 'kept', 'is_known', FOUND, 'value', v_value);
END $$;
