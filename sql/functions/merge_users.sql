-- Makes one user of two: the winner gets the loser's names and what the loser wrote and waits, numbered behind what the
-- winner has, at the winner's time. The loser's open session ends, its history stays under its own id, which the winner
-- names (merged_into). The winner keeps its state, and gets from the loser's what it lacks; who of them had opted out,
-- is paused, or had a human, so is the winner (note_human, give_human). Turns that run read what is true no more: they are
-- stale.
--
-- Locks both users, in the order of their ids: whoever locks them otherwise would wait for ever.
-- Asked again it does nothing more. Returns what waits now in its new order, [{id, seq}, …]; NULL when they are of two
-- channels, are one, or one of them was merged into a third.
CREATE OR REPLACE FUNCTION merge_users(p_winner_id uuid, p_loser_id uuid, p_now timestamptz DEFAULT NULL) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_winner users;
    v_loser users;
    v_at timestamptz;
    v_has_human boolean;
    v_moved json;
    v_aside jsonb;
BEGIN
    PERFORM lock_user(least(p_winner_id, p_loser_id));
    PERFORM lock_user(greatest(p_winner_id, p_loser_id));
    SELECT * INTO v_winner FROM users WHERE id = p_winner_id;
    SELECT * INTO v_loser FROM users WHERE id = p_loser_id;
    IF v_loser.merged_into = p_winner_id THEN
        RETURN '[]';
    ELSIF (v_winner.channel = v_loser.channel) IS NOT TRUE OR p_winner_id = p_loser_id
       OR v_winner.merged_into IS NOT NULL OR v_loser.merged_into IS NOT NULL THEN
        RETURN NULL;
    END IF;
    v_at := greatest(coalesce(p_now, clock_timestamp()), v_winner.last_accepted_at, v_loser.last_accepted_at);

    v_has_human := note_human(v_loser, v_at);
    PERFORM end_open_session(v_loser, v_at, 'operator');
    v_moved := move_inbox(v_winner, v_loser, v_at);
    UPDATE user_aliases SET user_id = p_winner_id WHERE user_id = p_loser_id;
    UPDATE users
       SET merged_into = p_winner_id, names_moved = true, waiting = 0, next_seq = last_seq + 1, state = '{}',
           state_aside = NULL, owner_changed_at = NULL, paused_at = NULL, pause_reason = NULL,
           last_accepted_at = v_at, version = version + 1
     WHERE id = p_loser_id;
    UPDATE users SET merged_into = p_winner_id WHERE merged_into = p_loser_id;
    IF v_loser.owner_changed_at IS NOT NULL THEN
        v_aside := coalesce(v_loser.state_aside, '{}') || v_loser.state;
        v_loser.state := '{}';
    END IF;
    UPDATE users
       SET last_seq = last_seq + json_array_length(v_moved), waiting = waiting + json_array_length(v_moved),
           last_accepted_at = v_at, last_written_at = greatest(last_written_at, v_loser.last_written_at),
           version = version + 1,
           state = v_loser.state || state,
           state_aside = CASE WHEN v_aside IS NULL THEN state_aside ELSE v_aside || coalesce(state_aside, '{}') END,
           former_names = ARRAY(
               SELECT n FROM unnest(former_names || v_loser.former_names) n WHERE NOT EXISTS (
                   SELECT FROM user_aliases a
                    WHERE a.channel = v_winner.channel AND a.alias = n AND a.user_id = p_winner_id)),
           opted_out_at = coalesce(opted_out_at, v_loser.opted_out_at),
           owner_changed_at = coalesce(owner_changed_at, v_loser.owner_changed_at),
           paused_at = coalesce(paused_at, v_loser.paused_at),
           pause_reason = coalesce(pause_reason, v_loser.pause_reason),
           pauses = greatest(pauses, v_loser.pauses)
     WHERE id = p_winner_id;
    IF v_has_human THEN
        PERFORM give_human(v_winner, p_loser_id, v_at);
    END IF;
    PERFORM move_conflicts(p_winner_id, p_loser_id);
    RETURN v_moved;
END $$;
