-- Lets a channel send again that its provider had refused. p_held_at: since when, as the caller saw it, so that a repeated
-- call opens no later refusal; NULL: whichever. Returns whether it was held.
CREATE OR REPLACE FUNCTION open_channel(p_channel text, p_held_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM channel_holds
     WHERE channel = p_channel
       AND coalesce(broken_at, not_before) = coalesce(p_held_at, broken_at, not_before);
    RETURN FOUND;
END $$;
