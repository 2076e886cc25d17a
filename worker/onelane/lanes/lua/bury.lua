-- Moves a dead message's job to its lane's FailedJobRegistry, where RQ's tools show it and may requeue it. A job that
-- has the mark `buried` and is on the lane has been requeued: it is left there. Runs before finish.lua, under the same
-- lease.
-- ARGV: now, user, token, message id, ended at, ttl of the burial in s, field count n, then n job fields and values
--       (2n entries; for a job that Redis has lost), then the failure's fields and values for RQ's result stream
-- Returns 1, or 0 when the lease was lost.
local now, user, token, id = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local ended_at, ttl, fields = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
if holder(user) ~= token then return 0 end
if is_buried(id) then return 1 end
ours('LREM', queue_key(user), 0, id)
redis.call('DEL', results_key(id))
ours('HSET', job_key(id), unpack(ARGV, 8, 7 + 2 * fields))
redis.call('HSET', job_key(id), 'status', 'failed', 'buried', '1', 'ended_at', ended_at)
redis.call('EXPIRE', job_key(id), ttl)
redis.call('XADD', results_key(id), '*', unpack(ARGV, 8 + 2 * fields))
redis.call('EXPIRE', results_key(id), ttl)
ours('ZADD', failed_key(user), digits(math.floor(now / 1000) + ttl), id)
ours('SADD', QUEUES, queue_key(user))
ours('SADD', BURIED, user)
return 1
