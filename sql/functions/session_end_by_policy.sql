-- Decides when the policy ends a session that hears nothing more, and why: the earliest of the idle gap, the next
-- day start and the maximum age. A message accepted at that instant or later belongs to the next session.
CREATE OR REPLACE FUNCTION session_end_by_policy(
    p_channel text, p_started_at timestamptz, p_last_message_at timestamptz,
    OUT ends_at timestamptz, OUT reason text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_policy channel_policies := policy_of(p_channel);
    v_instant timestamptz;
BEGIN
    ends_at := p_last_message_at + make_interval(secs => v_policy.idle_timeout_s);
    reason := 'timeout';
    IF v_policy.day_start IS NOT NULL THEN
        v_instant := next_day_start(p_last_message_at, v_policy.day_start, v_policy.timezone);
        IF v_instant < ends_at THEN
            ends_at := v_instant;
            reason := 'end_of_day';
        END IF;
    END IF;
    IF v_policy.max_age_s IS NOT NULL THEN
        v_instant := p_started_at + make_interval(secs => v_policy.max_age_s);
        IF v_instant < ends_at THEN
            ends_at := v_instant;
            reason := 'max_age';
        END IF;
    END IF;
END $$;
