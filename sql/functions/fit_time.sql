-- Brings a user's times back to the clock, after it was ahead for a while: else accepted_at stands still until the
-- clock has caught up, and no session ends by silence.
--
-- Times after p_now move back, all by as much as the latest is ahead, so that their order and the time between them
-- stay; but not before the latest that is not ahead. Times up to p_now stay. So sessions stay whole, apart, in order.
-- What a turn that runs has read changes: it is stale, and runs again. Asked again, it finds nothing ahead.
-- Locks the user's row. Returns by how much the times were ahead, or NULL when they were not.
CREATE OR REPLACE FUNCTION fit_time(p_user_id uuid, p_now timestamptz DEFAULT NULL) RETURNS interval
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user(p_user_id);
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_latest timestamptz;
    v_by interval;
    v_floor timestamptz;
BEGIN
    SELECT greatest(v_user.last_accepted_at, max(greatest(last_message_at, escalated_at, ended_at))) INTO v_latest
      FROM conversation_sessions WHERE user_id = p_user_id;
    IF v_latest IS NULL OR v_latest <= v_now THEN
        RETURN NULL;
    END IF;
    v_by := v_latest - v_now;
    SELECT max(at) INTO v_floor FROM (
        SELECT unnest(ARRAY[started_at, last_message_at, escalated_at, ended_at]) FROM conversation_sessions
         WHERE user_id = p_user_id
        UNION ALL SELECT accepted_at FROM messages WHERE user_id = p_user_id
        UNION ALL SELECT accepted_at FROM inbox WHERE user_id = p_user_id) times (at)
     WHERE at <= v_now;

    UPDATE conversation_sessions
       SET started_at = fitted(started_at, v_now, v_by, v_floor),
           last_message_at = fitted(last_message_at, v_now, v_by, v_floor),
           escalated_at = fitted(escalated_at, v_now, v_by, v_floor),
           ended_at = fitted(ended_at, v_now, v_by, v_floor),
           sweep_at = least(sweep_at, v_now)
     WHERE user_id = p_user_id AND greatest(last_message_at, escalated_at, ended_at) > v_now;
    UPDATE inbox
       SET accepted_at = fitted(accepted_at, v_now, v_by, v_floor),
           later_since = fitted(later_since, v_now, v_by, v_floor),
           redriven_at = fitted(redriven_at, v_now, v_by, v_floor),
           end_at = fitted(end_at, v_now, v_by, v_floor),
           escalate_at = fitted(escalate_at, v_now, v_by, v_floor)
     WHERE user_id = p_user_id AND seq >= v_user.next_seq;
    UPDATE messages
       SET accepted_at = fitted(accepted_at, v_now, v_by, v_floor),
           processed_at = fitted(processed_at, v_now, v_by, v_floor),
           redriven_at = fitted(redriven_at, v_now, v_by, v_floor),
           end_at = fitted(end_at, v_now, v_by, v_floor),
           dropped_at = fitted(dropped_at, v_now, v_by, v_floor)
     WHERE user_id = p_user_id AND greatest(accepted_at, processed_at, redriven_at, end_at, dropped_at) > v_now;
    UPDATE accepted_deliveries SET accepted_at = fitted(accepted_at, v_now, v_by, v_floor)
     WHERE user_id = p_user_id AND accepted_at > v_now;
    UPDATE users
       SET last_accepted_at = fitted(last_accepted_at, v_now, v_by, v_floor),
           opted_out_at = fitted(opted_out_at, v_now, v_by, v_floor),
           owner_changed_at = fitted(owner_changed_at, v_now, v_by, v_floor), version = version + 1
     WHERE id = p_user_id;
    RETURN v_by;
END $$;
