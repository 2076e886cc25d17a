-- Extends all leases of a worker process, and returns those that it has lost. A paused lane keeps its score. With it, or
-- without any leases, the worker is heard: by this lease.lua tells a worker that is slow from one that died.
-- A lease that ended but was not taken over still belongs to its holder: leasing and renewing are atomic.
-- ARGV: now, ttl in ms, worker ('': it is not heard), the time that it expects ('': it has not called before), then
--       user, token, user, token, …
-- Returns now, by how many ms Redis' clock has stepped, then the tokens of the leases whose lock has another token, or is
-- gone.
local ttl, worker = tonumber(ARGV[2]), ARGV[3]
local now, stepped = confirmed_clock(ARGV[1], ARGV[4], ttl)
local ends = digits(now + ttl)
local answer = { digits(now), digits(stepped) }
even_when_full()
for i = 5, #ARGV, 2 do
  local user, token = ARGV[i], ARGV[i + 1]
  if holder(user) == token then
    extend(user, ends, ttl)
  else
    answer[#answer + 1] = token
  end
end

-- `resumed`: when it was heard again after a silence in which a lease could have ended. Then Redis may have been away.
if worker ~= '' then
  local last = tonumber(ours('HGET', beat_key(worker), 'last') or '')
  if last and now - last > SILENCE * ttl then redis.call('HSET', beat_key(worker), 'resumed', digits(now)) end
  redis.call('HSET', beat_key(worker), 'last', digits(now))
  redis.call('PEXPIRE', beat_key(worker), ttl + LOCK_KEPT_MS)
end
return answer
