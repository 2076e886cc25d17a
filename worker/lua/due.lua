-- Makes a lane due now: overrides parking, and a pause only when told, but never a valid lease.
-- ARGV: now, user, unpause (1: the user was resumed)
-- Returns 1 when the lane is due, 0 when it stays leased or paused.
local now, user, unpause = clock(ARGV[1]), ARGV[2], ARGV[3] == '1'
if is_paused(user) and not unpause then return 0 end
local held = locked_until(user, now)
if held > 0 then
  redis.call('ZADD', LANES, digits(held), user)
  return 0
end
redis.call('ZADD', LANES, digits(now), user)
wake_one()
return 1
