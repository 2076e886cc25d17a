-- Locks a name of what the outbox writes and nobody may write at the same time, until the transaction ends: `lane:` and a
-- user's id, `hold:` and a channel, `sent:`, a channel, `:` and the provider's id of a reply.
-- Returns whether it is ours: another transaction holds it, and p_waits is false.
CREATE OR REPLACE FUNCTION lock_name(p_name text, p_waits boolean DEFAULT true) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF p_waits THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(p_name, 1));
        RETURN true;
    END IF;
    RETURN pg_try_advisory_xact_lock(hashtextextended(p_name, 1));
END $$;
