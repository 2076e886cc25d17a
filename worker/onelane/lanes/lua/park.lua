-- Releases a lane until a later time: the whole lane waits, so that order holds. A delay of 0 makes it due now.
-- For the holder alone. A paused lane stays paused.
-- ARGV: now, user, token, delay in ms, ms between turns that the rate limit asks for (0: none), turns that began under
--       this lease, then the ids of messages that became terminal under this lease
-- Returns 1, or 0 when the lease was lost.
local now, user, token, delay = clock(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
if holder(user) ~= token then return 0 end
even_when_full()
local due = math.max(now + delay, paced(user, now, tonumber(ARGV[5]), tonumber(ARGV[6])))
redis.call('DEL', lock_key(user))
take_off(user, 7)
if not is_paused(user) then
  ours('ZADD', LANES, digits(due), user)
  wake_one()
end
return 1
