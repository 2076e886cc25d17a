-- Finds the reply that a provider speaks of: by the id that the provider gave it, else by our own.
CREATE OR REPLACE FUNCTION reply_meant(
    p_channel text, p_provider_id text, p_key uuid, OUT id uuid, OUT user_id uuid)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    SELECT p.reply_id, p.user_id INTO id, user_id
      FROM provider_messages p WHERE p.channel = p_channel AND p.provider_id = p_provider_id;
    IF NOT FOUND AND p_key IS NOT NULL THEN
        SELECT m.id, m.user_id INTO id, user_id
          FROM messages m WHERE m.id = p_key AND m.channel = p_channel AND m.direction = 'out';
    END IF;
END $$;
