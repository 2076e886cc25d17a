-- Hands out a user's next batch and the session it belongs to, to the holder of a lease: the lowest waiting message, and
-- where the channel answers several together, those behind it that may join (joins_batch). Who is in is frozen then, so
-- that a turn that runs again gets the same.
--
-- p_lease: {user_id, fence, hint: the cached session id, taken_over: the lease before ours was never released, so its
--           holder may have died of this message; then also token, of our lease, and taken_from, of that one}.
-- User, message and session are read in one statement that takes no lock: together they are of one instant, which
-- `version` names. A statement that locks a row and reads others gets that row in its newest version and the others in
-- an older one. Where a lock is needed (a take-over, no session, a redriven message, batches) it is a statement of its
-- own, and all is read again after it.
-- An escalation that is noted on the message takes effect now. What came while the user was answered, on a channel that
-- says so then (reject_message), is settled first: a part of it, where it is much (settle_busy).
-- A good hint costs no lock. One that is not this user's open session for this message is wrong.
-- A redriven message runs before one that may be running: it takes the fence at once, so that a turn under an older one
-- commits nothing.
-- Returns {user_id, outcome, fence: the newest that has written, hint: hit, miss, wrong or unused, turn, outbox}. outcome:
-- turn; idle (nothing waits); again (much was settled, and the lane is to come back for the rest); paused; fenced (a later
-- lease has written); skipped (another holds the user's row).
-- outbox, where nothing is to be done: the user's replies that are to be sent, since who committed them may have died
-- before it let the out lane know.
-- turn: {version, messages: […], superseded, user: {…}, session: {…}}, as worker/onelane/model.py reads it.
CREATE OR REPLACE FUNCTION begin_turn(p_lease jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid := (p_lease ->> 'user_id')::uuid;
    v_fence bigint := (p_lease ->> 'fence')::bigint;
    v_hint uuid := (p_lease ->> 'hint')::uuid;
    v_taken_over boolean := coalesce((p_lease ->> 'taken_over')::boolean, false);
    v_read record;
    v_user users;
    v_message inbox;
    v_session conversation_sessions;
    v_session_id uuid;
    v_is_locked boolean := false;
    v_is_fenced boolean;
    v_is_settled boolean;
    v_hint_is text;
    v_last bigint;
    v_messages json;
    v_is_first boolean;
BEGIN
    IF v_taken_over THEN
        v_user := lock_user(v_user_id, p_waits);
        IF v_user.id IS NULL AND NOT p_waits THEN
            RETURN json_build_object('user_id', v_user_id, 'outcome', 'skipped', 'fence', 0);
        END IF;
        v_is_locked := true;
    END IF;
    LOOP
        SELECT u, m.lowest AS m, s, coalesce(p.batch_max, 1) AS batch_max INTO v_read
          FROM users u
          LEFT JOIN channel_policies p ON p.channel = u.channel
          LEFT JOIN LATERAL (
               -- Not min(): a plan made while few wait would read all of a backlog to find it.
               SELECT i AS lowest FROM inbox i WHERE i.user_id = u.id AND i.seq >= u.next_seq ORDER BY i.seq LIMIT 1
          ) m ON true
          LEFT JOIN conversation_sessions s ON s.id = coalesce((m.lowest).session_id, v_hint) AND s.user_id = u.id
         WHERE u.id = v_user_id;
        v_user := v_read.u;
        v_message := v_read.m;
        v_session := v_read.s;
        v_is_fenced := is_fenced(v_user.fence, v_fence);
        IF v_is_fenced OR v_user.paused_at IS NOT NULL OR v_message.id IS NULL THEN
            RETURN json_build_object(
                'user_id', v_user_id, 'fence', coalesce(v_user.fence, 0),
                'outcome', CASE WHEN v_is_fenced THEN 'fenced'
                                WHEN v_user.paused_at IS NOT NULL THEN 'paused' ELSE 'idle' END,
                'outbox', waiting_replies(v_user_id));
        END IF;

        IF v_message.is_busy THEN
            v_is_settled := settle_busy(v_user_id, v_fence, p_waits);
            IF v_is_settled IS NULL THEN
                RETURN json_build_object('user_id', v_user_id, 'outcome', 'skipped', 'fence', 0);
            ELSIF NOT v_is_settled THEN
                RETURN json_build_object('user_id', v_user_id, 'outcome', 'again', 'fence', v_fence);
            END IF;
            v_is_locked := true;
            v_taken_over := false; -- nobody died of it
            CONTINUE;
        END IF;

        IF v_message.session_id IS NOT NULL THEN
            v_hint_is := 'unused'; -- redriven: it keeps the session in which it died, whatever became of that
            EXIT WHEN v_is_locked;
        ELSIF v_hint IS NULL THEN
            v_hint_is := 'miss';
        ELSIF v_session.status = 'active' AND v_message.escalate_at IS NULL AND should_create_new_session(
                v_user.channel, v_session.started_at, v_session.last_message_at, v_message.accepted_at) IS NULL THEN
            v_hint_is := 'hit';
            EXIT WHEN v_is_locked OR v_read.batch_max = 1 AND v_message.batch_last IS NULL;
        ELSE
            v_hint_is := 'wrong';
            v_session := NULL;
        END IF;
        EXIT WHEN v_is_locked;
        v_user := lock_user(v_user_id, p_waits);
        IF v_user.id IS NULL THEN
            RETURN json_build_object('user_id', v_user_id, 'outcome', 'skipped', 'fence', 0);
        END IF;
        v_is_locked := true;
    END LOOP;

    IF v_taken_over OR v_message.session_id IS NOT NULL THEN
        UPDATE users SET fence = v_fence WHERE id = v_user_id;
    END IF;
    -- Not again when the answer was lost, and who asked gave the lane back.
    IF v_taken_over AND v_user.fence < v_fence AND NOT EXISTS (
            SELECT FROM takeovers t WHERE t.user_id = v_user_id AND t.taken_from = p_lease ->> 'taken_from') THEN
        UPDATE inbox SET deaths = deaths + 1 WHERE user_id = v_user_id AND seq = v_message.seq
        RETURNING * INTO v_message;
        INSERT INTO takeovers (user_id, message_id, fence, token, taken_from)
        VALUES (v_user_id, v_message.id, v_fence, p_lease ->> 'token', p_lease ->> 'taken_from')
            ON CONFLICT DO NOTHING;
    END IF;
    IF v_session.id IS NULL THEN
        v_session_id := get_or_create_session(v_user_id, v_message.accepted_at);
        SELECT * INTO v_session FROM conversation_sessions WHERE id = v_session_id;
    END IF;
    IF v_message.escalate_at IS NOT NULL THEN
        v_session := escalate_as_noted(v_session.id, v_message.escalate_at);
    END IF;

    v_last := v_message.seq;
    IF v_read.batch_max > 1 OR v_message.batch_last IS NOT NULL THEN
        v_last := coalesce(
            v_message.batch_last, last_of_batch(v_user, v_message, v_session.started_at, v_read.batch_max - 1));
        UPDATE inbox SET batch_last = v_last
         WHERE user_id = v_user_id AND seq = v_message.seq AND batch_last IS NULL;
    END IF;

    IF v_message.has_payload THEN
        SELECT raw INTO v_message.raw FROM payloads WHERE message_id = v_message.id;
    END IF;
    IF v_last = v_message.seq THEN
        v_messages := json_build_array(line_of(v_message, v_message.raw));
    ELSE
        SELECT json_agg(line_of(i, coalesce(p.raw, i.raw)) ORDER BY i.seq) INTO v_messages
          FROM inbox i LEFT JOIN payloads p ON p.message_id = i.id
         WHERE i.user_id = v_user_id AND i.seq BETWEEN v_message.seq AND v_last;
    END IF;
    v_is_first := v_message.accepted_at = v_session.started_at AND begins_session(v_session, v_message);
    RETURN json_build_object(
        'user_id', v_user_id,
        'outcome', 'turn',
        'fence', v_user.fence,
        'hint', v_hint_is,
        'turn', json_build_object(
            'version', v_user.version,
            'messages', v_messages,
            'superseded', v_message.superseded,
            'user', json_build_object(
                'id', v_user.id, 'channel', v_user.channel, 'sender', v_user.sender, 'state', v_user.state,
                'last_written_at', v_user.last_written_at),
            'session', json_build_object(
                'id', v_session.id, 'status', v_session.status, 'started_at', v_session.started_at,
                'state', v_session.state, 'summary', v_session.summary, 'is_first', v_is_first,
                'previous_summary', CASE WHEN v_is_first THEN previous_summary(v_session) END)));
END $$;
