-- Raises the fence counter to what Postgres has seen: after a fail-over the counter may be lower. Not to a number that no
-- lease can have had: Postgres does not count that either.
-- ARGV: now, fence
-- Returns the counter.
local now, given = redis_clock(ARGV[1]), tonumber(ARGV[2])
local counter = fence_now(now) or 0
if given > counter and given < fence_max(now) then
  even_when_full()
  redis.call('SET', FENCE, ARGV[2])
  return ARGV[2]
end
return digits(counter)
