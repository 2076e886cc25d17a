-- Forgets a person on one channel: all rows of the users, in whatever table, their statuses and their webhooks in quarantine. What was
-- accepted of them stays known by a hash until no provider delivers it again: else a redelivery would bring the person
-- back. In the audit the acts stay, without the person.
--
-- p_names: every name that a provider has used; p_spellings: the bytes by which a webhook of theirs is recognised.
-- Locks users and out lanes, in the order of their ids. Returns how many messages, both ways, and how many webhooks.
CREATE OR REPLACE FUNCTION forget_user(
    p_users uuid[], p_names text[], p_spellings bytea[], OUT messages bigint, OUT quarantined bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid;
    v_table name;
    v_channel text := (SELECT channel FROM users WHERE id = p_users[1]);
BEGIN
    FOREACH v_user_id IN ARRAY p_users LOOP
        PERFORM lock_user(v_user_id);
    END LOOP;
    FOREACH v_user_id IN ARRAY p_users LOOP
        PERFORM lock_out_lane(v_user_id);
    END LOOP;
    DELETE FROM reply_statuses s
     WHERE s.participant = ANY(p_names) AND s.channel = v_channel
        OR s.key IN (SELECT m.id FROM messages m WHERE m.user_id = ANY(p_users) AND m.direction = 'out')
        OR (s.channel, s.provider_id) IN (
            SELECT p.channel, p.provider_id FROM provider_messages p WHERE p.user_id = ANY(p_users));
    DELETE FROM quarantined_payloads q
     WHERE q.channel = v_channel AND EXISTS (
           SELECT FROM unnest(p_spellings) spelling WHERE position(spelling IN q.body) > 0);
    GET DIAGNOSTICS quarantined = ROW_COUNT;
    INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at)
    SELECT channel, forgotten_id(external_id), user_id, message_id, seq, accepted_at
      FROM accepted_deliveries WHERE user_id = ANY(p_users)
        ON CONFLICT DO NOTHING;
    DELETE FROM accepted_deliveries WHERE user_id = ANY(p_users) AND external_id NOT LIKE 'sha256:%';
    UPDATE audit SET subject = NULL, detail = '{}' WHERE subject = ANY(p_users::text[]);
    DELETE FROM identity_conflicts WHERE other_id = ANY(p_users);
    SELECT count(*) INTO messages FROM messages m WHERE m.user_id = ANY(p_users);
    FOR v_table IN SELECT * FROM tables_of_users() t WHERE t <> 'accepted_deliveries' LOOP
        EXECUTE format('DELETE FROM %I WHERE user_id = ANY($1)', v_table) USING p_users;
    END LOOP;
    DELETE FROM users WHERE id = ANY(p_users);
END $$;
