-- Gives a lane to an operator's act for ttl ms, unless a worker has it: then that worker leaves it for a moment when its
-- lease ends in order. Nobody dies of an act that does not end: its lock goes with its time. Asked again with the same
-- token, it holds for ttl ms more. A lane without work can be held, too.
-- ARGV: now, user, token, ttl in ms
-- Returns 1 when the lane is held, 0 while a worker has it.
local now, user, token, ttl = clock(ARGV[1], ARGV[2]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local key = lock_key(user)
local lock = ours('HMGET', key, 'token', 'until')
even_when_full()
if locked_until(lock[2], now) > 0 and lock[1] ~= token then
  redis.call('HSET', key, 'wanted', '1')
  return 0
end
redis.call('DEL', key)
redis.call('HSET', key, 'token', token, 'until', digits(now + ttl), 'worker', 'operator')
redis.call('PEXPIRE', key, ttl)
if not is_paused(user) then ours('ZADD', LANES, 'XX', digits(now + ttl), user) end
return 1
