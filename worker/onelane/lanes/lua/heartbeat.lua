-- Notes that a worker lives, by the lanes' clock, Redis' own: its machine's may be minutes behind. Who has not been heard for long is
-- forgotten.
-- ARGV: now, worker, ms after which a silent worker is forgotten
local now, worker, kept = lanes_clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
even_when_full()
ours('ZADD', HEARTBEATS, digits(now), worker)
redis.call('ZREMRANGEBYSCORE', HEARTBEATS, '-inf', digits(now - kept))
return 1
