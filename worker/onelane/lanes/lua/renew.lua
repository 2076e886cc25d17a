-- Extends all leases of a process, and returns those that it has lost. A paused lane keeps its score.
-- A lease that ended but was not taken over still belongs to its holder: leasing and renewing are atomic.
-- ARGV: now, ttl in ms, then user, token, user, token, …
-- Returns the tokens of the leases whose lock has another token, or is gone.
local now, ttl = clock(ARGV[1]), tonumber(ARGV[2])
local ends = digits(now + ttl)
local lost = {}
even_when_full()
for i = 3, #ARGV, 2 do
  local user, token = ARGV[i], ARGV[i + 1]
  if holder(user) == token then
    redis.call('HSET', lock_key(user), 'until', ends)
    redis.call('PEXPIRE', lock_key(user), ttl + 60000)
    if not is_paused(user) then ours('ZADD', LANES, 'XX', ends, user) end
  else
    lost[#lost + 1] = token
  end
end
return lost
