-- Adds the lanes, without jobs, of users who have something waiting in Postgres. A full Redis gets twice as many due lanes
-- from here as from intake, so that whoever was left out is not left out for ever.
-- ARGV: now, JSON [{user}, …]
-- Returns for each 1, or 0 while enough lanes are due.
return for_each(ARGV[2], clock(ARGV[1]), function(item, now)
  return add_lane(item.user, math.max(now, paced_until(item.user, now)), 2 * DUE_WHEN_FULL_MAX) and 1 or 0
end)
