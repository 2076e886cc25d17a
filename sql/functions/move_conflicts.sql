-- Lets two merged users' conflicts with others be the winner's, and forgets that between them.
CREATE OR REPLACE FUNCTION move_conflicts(p_winner_id uuid, p_loser_id uuid) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO identity_conflicts (user_id, other_id, noted_at)
    SELECT pair.*, c.noted_at FROM identity_conflicts c,
           LATERAL (VALUES (p_winner_id, c.other_id), (c.other_id, p_winner_id)) pair
     WHERE c.user_id = p_loser_id AND c.other_id <> p_winner_id
    ON CONFLICT DO NOTHING;
    DELETE FROM identity_conflicts WHERE p_loser_id IN (user_id, other_id);
$$;
