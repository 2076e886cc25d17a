-- Raises the fence counter to what Postgres has seen: after a fail-over the counter may be lower.
-- ARGV: fence
-- Returns the counter.
local given, counter = tonumber(ARGV[1]), fence_now() or 0
if given > counter then
  even_when_full()
  redis.call('SET', FENCE, digits(given))
  return ARGV[1]
end
return digits(counter)
