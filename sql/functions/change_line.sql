-- Changes how history shows a line that its writer has edited or deleted, also while it waits; what a handler gets is
-- what was accepted. A line that we do not know any more, or of another user, stays as it is. The caller holds the
-- user's row lock.
CREATE OR REPLACE FUNCTION change_line(p_user users, p_item jsonb, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_line accepted_deliveries;
    v_text text := CASE p_item ->> 'event' WHEN 'edited' THEN coalesce(p_item ->> 'text', '') END;
    v_deleted_at timestamptz := CASE p_item ->> 'event' WHEN 'deleted' THEN p_at END;
BEGIN
    SELECT d.* INTO v_line
      FROM accepted_deliveries d JOIN users u ON u.id = d.user_id
     WHERE d.channel = p_user.channel AND d.external_id = p_item ->> 'quoted'
       AND p_user.id IN (u.id, u.merged_into);
    UPDATE inbox SET edited_text = coalesce(v_text, edited_text), deleted_at = coalesce(deleted_at, v_deleted_at)
     WHERE user_id = v_line.user_id AND seq = v_line.seq;
    UPDATE messages SET edited_text = coalesce(v_text, edited_text), deleted_at = coalesce(deleted_at, v_deleted_at)
     WHERE id = v_line.message_id;
END $$;
