-- Forgets sessions of a channel that ended before p_before, whole: with their messages, replies, calls and steps, and the
-- events between them. Walks those that began after p_after, oldest first: looks at p_looks of them at most, and forgets
-- p_most, until p_lines lines are gone. One that has more than p_lines itself goes in as many calls. What somebody holds,
-- and what something still waits in, is left for the next lap: nobody waits for this.
-- One that cannot be forgotten stands alone in a block of its own, is reported by a notice and stepped over; also one that
-- takes so long that the statement is cancelled, which ends the call: it has no time-out any more.
-- Deliveries stay known as long as all others, so that none comes again.
-- Returns how many it forgot, how many failed, and where the next call goes on: NULL at the end of a lap.
CREATE OR REPLACE FUNCTION forget_sessions(
    p_channel text, p_before timestamptz, p_after timestamptz, p_looks integer, p_most integer, p_lines integer,
    OUT forgotten integer, OUT failed integer, OUT reached timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    v_session conversation_sessions;
    v_piece record;
    v_looks integer := 0;
    v_lines integer := 0;
    v_ends boolean := false;
BEGIN
    forgotten := 0;
    failed := 0;
    reached := p_after;
    FOR v_session IN
        SELECT * FROM conversation_sessions s
         WHERE s.started_at > p_after AND s.started_at < p_before ORDER BY s.started_at LIMIT p_looks
    LOOP
        v_looks := v_looks + 1;
        IF v_session.status = 'ended' AND v_session.ended_at < p_before THEN
            BEGIN
                v_piece := forget_session(v_session, p_channel, p_before, p_lines);
                v_lines := v_lines + v_piece.lines;
                forgotten := forgotten + v_piece.is_gone::integer;
                v_ends := v_piece.lines > 0 AND NOT v_piece.is_gone;
            EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                NULL; -- the next lap finds it
            WHEN query_canceled OR OTHERS THEN
                RAISE NOTICE 'session_not_forgotten' USING ERRCODE = 'OL001', DETAIL = jsonb_build_object(
                    'user_id', v_session.user_id, 'session_id', v_session.id, 'sqlstate', SQLSTATE);
                failed := failed + 1;
                v_lines := CASE SQLSTATE WHEN '57014' THEN p_lines ELSE v_lines END;
            END;
            EXIT WHEN v_ends;
        END IF;
        reached := v_session.started_at;
        v_ends := forgotten + failed >= p_most OR v_lines >= p_lines;
        EXIT WHEN v_ends;
    END LOOP;
    IF v_looks < p_looks AND NOT v_ends THEN
        reached := NULL;
    END IF;
END $$;
