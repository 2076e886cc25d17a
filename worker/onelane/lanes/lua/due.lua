-- Makes a lane due now: ends parking and pacing, a pause only with `unpause`, and never a valid lease. Who has
-- the lock has perhaps heard of the pause before it ended: the lock notes that the user was resumed (`resumed`).
-- ARGV: now, user, unpause (1: the user was resumed)
-- Returns 1 when the lane is due, 0 when it stays leased or paused, or is left to the reconciler by a full Redis.
local now, user, unpause = clock(ARGV[1], ARGV[2]), ARGV[2], ARGV[3] == '1'
local score = ours('ZSCORE', LANES, user)
if score == 'inf' and not unpause then return 0 end
local lock = ours('HMGET', lock_key(user), 'until', 'token')
local held = locked_until(lock[1], now)
if held == 0 and not score then
  local is_there = add_lane(user, now, DUE_WHEN_FULL_MAX)
  wake_workers()
  return is_there and 1 or 0
end
even_when_full()
if unpause and lock[2] then redis.call('HSET', lock_key(user), 'resumed', '1') end
if held > 0 then
  redis.call('ZADD', LANES, digits(held), user)
  return 0
end
-- Due already: it keeps its place in the order.
if tonumber(score) <= now then return 1 end
redis.call('ZADD', LANES, digits(now), user)
wake_one()
wake_workers()
return 1
