-- Adds the lane, without a job, of a user who has something waiting in Postgres. A full Redis gets twice as many due lanes
-- from here as from intake, so that whoever was left out is not left out for ever.
-- ARGV: now, user
-- Returns 1, or 0 while enough lanes are due.
local now, user = clock(ARGV[1]), ARGV[2]
return add_lane(user, math.max(now, paced_until(user, now)), 2 * DUE_WHEN_FULL_MAX) and 1 or 0
