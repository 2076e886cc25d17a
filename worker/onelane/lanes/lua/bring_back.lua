-- Adds the lanes, without jobs, of users who have something waiting in Postgres. A full Redis gets twice as many due lanes
-- from here as from intake, so that whoever was left out is not left out for ever.
-- ARGV: now, JSON [{user}, …]
-- Returns for each 1, or 0 while enough lanes are due.
local items, started = cjson.decode(ARGV[2]), clock(ARGV[1])
local may_begin = all_paced_until(items, started)

return for_each(items, started, function(item, now)
  return add_lane(item.user, math.max(now, may_begin[item.user]), 2 * DUE_WHEN_FULL_MAX) and 1 or 0
end)
