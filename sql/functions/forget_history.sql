-- Forgets lines of a person on one channel, at most p_most of them (NULL: all), and what is still to be sent: see forget_user.
-- So what many messages hang on goes in bounded transactions. Locks users and out lanes, in the order of their ids. Returns
-- how many lines.
CREATE OR REPLACE FUNCTION forget_history(p_users uuid[], p_most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid;
    v_ids uuid[];
BEGIN
    FOREACH v_user_id IN ARRAY p_users LOOP
        PERFORM lock_user(v_user_id);
    END LOOP;
    FOREACH v_user_id IN ARRAY p_users LOOP
        PERFORM lock_out_lane(v_user_id);
    END LOOP;
    v_ids := ARRAY(SELECT id FROM messages WHERE user_id = ANY(p_users) LIMIT p_most);
    PERFORM hide_deliveries(channel, array_agg(external_id))
       FROM messages WHERE id = ANY(v_ids) AND external_id IS NOT NULL GROUP BY channel;
    PERFORM forget_lines(v_ids);
    DELETE FROM outbox WHERE user_id = ANY(p_users); -- after the lines: one may be resent until it is gone
    RETURN cardinality(v_ids);
END $$;
