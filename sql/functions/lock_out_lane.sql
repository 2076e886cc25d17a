-- Locks a user's out lane against all who begin or settle sends, and reads it. One that has something to send and no row
-- yet gets one: two who find none meet in the lock of its name, and never wait for each other's row.
-- NULL: there is none and nothing to send, or another transaction holds it and p_waits is false.
CREATE OR REPLACE FUNCTION lock_out_lane(p_user_id uuid, p_waits boolean DEFAULT true) RETURNS out_lanes
LANGUAGE plpgsql AS $$
DECLARE
    v_lane out_lanes;
BEGIN
    LOOP
        IF p_waits THEN
            SELECT * INTO v_lane FROM out_lanes WHERE user_id = p_user_id FOR NO KEY UPDATE;
        ELSE
            SELECT * INTO v_lane FROM out_lanes WHERE user_id = p_user_id FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
        EXIT WHEN FOUND
            OR EXISTS (SELECT FROM out_lanes WHERE user_id = p_user_id)
            OR NOT EXISTS (SELECT FROM outbox WHERE user_id = p_user_id)
            OR NOT lock_name('lane:' || p_user_id, p_waits);
        INSERT INTO out_lanes (user_id) VALUES (p_user_id) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN v_lane;
END $$;
