-- Lets bots know which replies failed: each becomes an event of its user, once, and is listed no more.
--
-- A reply that itself answered such an event is left out, else the two would go on for ever. The event is the user's who
-- was meant, also when that one was merged. It has no time of the user's own: last_accepted_at stays.
-- A user's row that somebody holds is left for the next call. Takes at most p_most, oldest first.
-- Returns [{user_id, message_id, is_waiting}, …].
CREATE OR REPLACE FUNCTION tell_failures(p_most integer) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_failure failures_to_tell;
    v_user users;
    v_told json[] := '{}';
BEGIN
    FOR v_failure IN SELECT * FROM failures_to_tell ORDER BY failed_at LIMIT p_most LOOP
        v_user := lock_user(
            (SELECT coalesce(merged_into, id) FROM users WHERE id = v_failure.user_id), false);
        CONTINUE WHEN v_user.id IS NULL OR v_user.merged_into IS NOT NULL;
        DELETE FROM failures_to_tell WHERE reply_id = v_failure.reply_id RETURNING * INTO v_failure;
        CONTINUE WHEN NOT FOUND OR answers_a_failure(v_failure.reply_id);
        v_told := v_told || tell_failure(v_user, v_failure);
    END LOOP;
    RETURN to_json(v_told);
END $$;
