-- Releases a lane until a later time: the whole lane waits, so that order holds. A delay of 0 makes it due now.
-- For the holder alone. A paused lane stays paused.
-- ARGV: now, user, token, delay in ms, then the ids of messages that became terminal under this lease
-- Returns 1, or 0 when the lease was lost.
local now, user, token, delay = clock(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
if holder(user) ~= token then return 0 end
redis.call('DEL', lock_key(user))
take_off(user, 5)
if not is_paused(user) then
  ours('ZADD', LANES, digits(now + delay), user)
  wake_one()
end
return 1
