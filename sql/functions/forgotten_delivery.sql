-- Answers accept for what was accepted of somebody who is forgotten since: it is a duplicate. NULL: it is not that.
CREATE OR REPLACE FUNCTION forgotten_delivery(p_channel text, p_external_id text) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'outcome', 'duplicate', 'user_id', user_id, 'message_id', message_id, 'seq', seq, 'has_conflict', false,
        'differs', false, 'is_waiting', false)
      FROM accepted_deliveries WHERE channel = p_channel AND external_id = forgotten_id(p_external_id)
$$;
