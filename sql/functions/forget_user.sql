-- Forgets a person on one channel: all rows of the users, in whatever table, their statuses and their webhooks in quarantine. What was
-- accepted of them stays known by a hash until no provider delivers it again: else a redelivery would bring the person
-- back. In the audit the acts stay, without the person. Most lines are gone before (forget_history).
--
-- p_names: every name that a provider has used; p_spellings: by what a webhook of theirs is recognised (shows_name).
-- Locks users and out lanes, in the order of their ids. Returns how many messages, both ways, and how many webhooks.
CREATE OR REPLACE FUNCTION forget_user(
    p_users uuid[], p_names text[], p_spellings jsonb, OUT messages bigint, OUT quarantined bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_table name;
    v_channel text := (SELECT channel FROM users WHERE id = p_users[1]);
BEGIN
    messages := forget_history(p_users, NULL);
    PERFORM hide_deliveries(v_channel, ARRAY(
        SELECT external_id FROM inbox WHERE user_id = ANY(p_users)
        UNION ALL
        SELECT external_id FROM accepted_deliveries WHERE user_id = ANY(p_users) AND is_alone));
    DELETE FROM payloads WHERE message_id IN (SELECT id FROM inbox WHERE user_id = ANY(p_users));
    DELETE FROM tool_calls -- of redriven messages
     WHERE session_id IN (SELECT id FROM conversation_sessions WHERE user_id = ANY(p_users));
    DELETE FROM reply_statuses WHERE channel = v_channel AND participant = ANY(p_names) AND participant <> '';
    DELETE FROM quarantined_payloads WHERE channel = v_channel AND shows_name(body, p_spellings);
    GET DIAGNOSTICS quarantined = ROW_COUNT;
    UPDATE audit SET subject = NULL, detail = '{}' WHERE subject = ANY(p_users::text[]);
    DELETE FROM identity_conflicts WHERE other_id = ANY(p_users);
    FOR v_table IN SELECT * FROM tables_of_users() t WHERE t NOT IN ( -- these have no index by user, and are done
        'accepted_deliveries', 'payloads', 'provider_messages', 'tool_calls') LOOP
        EXECUTE format('DELETE FROM %I WHERE user_id = ANY($1)', v_table) USING p_users;
    END LOOP;
    DELETE FROM users WHERE id = ANY(p_users);
END $$;
