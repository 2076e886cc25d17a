-- Releases lanes until a later time: the whole lane waits, so that order holds. A delay of 0 makes it due now.
-- For the holder alone. A paused lane stays paused. Whose holder has begun nothing has counted no death: the one that it
-- took over from stays known.
-- ARGV: now, JSON [{user, token, done: ids of messages that became terminal under this lease, delay_ms, has_begun,
--       pace_ms: between turns that the rate limit asks for (0: none), runs: turns that began under this lease}, …]
-- Returns for each 1, or 0 when the lease was lost.

local function release_with(user, lost)
  released[user] = true
  redis.call('DEL', lock_key(user))
  redis.call('HSET', lock_key(user), 'lost', lost)
  redis.call('PEXPIRE', lock_key(user), LOCK_KEPT_MS)
end

return for_each(cjson.decode(ARGV[2]), clock(ARGV[1]), function(lane, now)
  local user = lane.user
  local lock = released[user] and {} or ours('HMGET', lock_key(user), 'token', 'wanted', 'lost')
  if lock[1] ~= lane.token then return 0 end
  even_when_full()
  local due = math.max(now + lane.delay_ms, paced(user, now, lane.pace_ms, lane.runs))
  due = left_alone(due, now, lock[2])
  if lock[3] and not lane.has_begun then release_with(user, lock[3]) else release(user) end
  take_off(user, lane.done)
  if not is_paused(user) then
    ours('ZADD', LANES, digits(due), user)
    wake_one()
  end
  return 1
end)
