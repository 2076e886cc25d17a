-- Lets lanes wait that are due, and that nobody has: to lease them before would be in vain. What a worker died on stays
-- due: its lock is still there.
-- ARGV: now, JSON [{user, delay_ms}, …]
-- Returns for each 1 when it waits now, 0 when it is left as it is.
return for_each(cjson.decode(ARGV[2]), clock(ARGV[1]), function(lane, now)
  local user = lane.user
  local score = ours('ZSCORE', LANES, user)
  if not score or score == 'inf' or tonumber(score) > now then return 0 end
  if redis.call('EXISTS', lock_key(user)) == 1 then return 0 end
  even_when_full()
  redis.call('ZADD', LANES, digits(now + lane.delay_ms), user)
  return 1
end)
