-- Uses every command that the scripts use, and a key of every kind: a user of Redis to whom one of them is forbidden
-- can do no work. It changes nothing: what it writes is under a key that nothing reads, and is gone at its end.
-- Returns 1.
local key = 'nothing'
for _, other in ipairs({
  LANES, WAKE, BURIED, FENCE, INSTANCE, QUEUES, queue_key(key), failed_key(key), job_key(key), results_key(key),
  lock_key(key), session_key(key), pace_key(key), collect_key(key), newer_key(key), NUMBERS, MINUTES, counted_key(key),
  duty_key(key), lease_key(key), WORKERS, worker_key(key), on_lane_key(key), beat_key(key), HEARTBEATS, UNSURE, SUSPENDED,
  RECONCILED, RECONCILE_CURSOR,
}) do redis.call('EXISTS', other) end
redis.call('TIME')
key = PREFIX .. key
even_when_full()
for _, commands in ipairs({
  { { 'SET', 1 }, { 'GET' }, { 'INCRBY', 1 }, { 'MGET' }, { 'TTL' }, { 'PTTL' }, { 'EXPIRE', 60 },
    { 'PEXPIRE', 60000 } },
  { { 'HSET', 'a', 1 }, { 'HSETNX', 'a', 1 }, { 'HINCRBY', 'a', 1 }, { 'HGET', 'a' }, { 'HMGET', 'a' }, { 'HGETALL' },
    { 'HEXISTS', 'a' }, { 'HLEN' } },
  { { 'RPUSH', 1 }, { 'LPUSH', 1 }, { 'LLEN' }, { 'LRANGE', 0, 0 }, { 'LREM', 1, 1 }, { 'LTRIM', 0, 0 } },
  { { 'SADD', 1 }, { 'SREM', 2 }, { 'SSCAN', 0 } },
  { { 'ZADD', 1, 1 }, { 'ZREM', 2 }, { 'ZSCORE', 1 }, { 'ZCARD' }, { 'ZREVRANGE', 0, 0 }, { 'ZREMRANGEBYSCORE', 2, 2 },
    { 'ZCOUNT', 1, 1 }, { 'ZRANGE', 0, 0, 'BYSCORE' } },
  { { 'XADD', '*', 'a', 1 } },
}) do
  for _, command in ipairs(commands) do redis.call(command[1], key, unpack(command, 2)) end
  redis.call('DEL', key)
end
return 1
