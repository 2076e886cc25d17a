-- Forgets lines of history, with all that hangs on them: payloads, calls, steps, take-overs, and what providers call and say of
-- replies. The caller holds the rows of their users and out lanes. Plans are made for these lines: a cached one would read
-- whole tables, or all calls of a long session for each of its lines.
CREATE OR REPLACE FUNCTION forget_lines(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_sessions uuid[] := ARRAY(SELECT DISTINCT session_id FROM messages WHERE id = ANY(p_ids));
BEGIN
    DELETE FROM reply_statuses s USING (
        SELECT channel, provider_id FROM messages WHERE id = ANY(p_ids)
        UNION ALL
        SELECT channel, provider_id FROM provider_messages WHERE reply_id = ANY(p_ids) AND is_extra) known
     WHERE s.channel = known.channel AND s.provider_id = known.provider_id;
    DELETE FROM reply_statuses WHERE key = ANY(p_ids);
    DELETE FROM provider_messages p USING messages m
     WHERE m.id = ANY(p_ids) AND p.channel = m.channel AND p.provider_id = m.provider_id;
    DELETE FROM provider_messages WHERE reply_id = ANY(p_ids) AND is_extra;
    DELETE FROM failures_to_tell WHERE reply_id = ANY(p_ids);
    DELETE FROM payloads WHERE message_id = ANY(p_ids);
    DELETE FROM steps WHERE message_id = ANY(p_ids);
    DELETE FROM takeovers t USING messages m
     WHERE m.id = ANY(p_ids) AND t.user_id = m.user_id AND t.message_id = m.id;
    DELETE FROM tool_calls WHERE session_id = ANY(v_sessions) AND message_id = ANY(p_ids);
    DELETE FROM messages WHERE id = ANY(p_ids);
END $$;
