-- Whether a waiting message is what most are: a text or files that were accepted as they came, of which nothing has failed
-- and nothing was noted. One expression: it becomes part of the statement that asks.
CREATE OR REPLACE FUNCTION is_plain(p_message inbox) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_message.kind = 'message'
       AND NOT (p_message.has_payload OR p_message.closes OR p_message.mentioned OR p_message.has_steps
                OR p_message.puts_state_aside)
       AND (p_message.batch_last > p_message.seq) IS NOT TRUE AND p_message.attempts + p_message.deaths = 0
       AND num_nonnulls(p_message.event, p_message.parts, p_message.raw, p_message.quoted, p_message.author,
                        p_message.repairs, p_message.edited_text, p_message.deleted_at, p_message.last_error,
                        p_message.redriven_at, p_message.end_at) = 0
$$;
