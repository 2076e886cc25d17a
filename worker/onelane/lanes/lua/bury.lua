-- Moves a dead message's job to its lane's FailedJobRegistry, where RQ's tools show it and may requeue it, and drops the
-- oldest ones beyond a number. A job that has the mark `buried` and is on the lane has been requeued: it is left there.
-- A full Redis buries nothing: the job is removed, Postgres has the message. Runs before finish.lua, under the same lease.
-- ARGV: now, user, token, message id, ended at, ttl of the burial in s, most burials, field count n, then n job fields
--       and values (2n entries; for a job that Redis has lost), then the failure's fields and values for RQ's results
-- Returns 1, or 0 when the lease was lost.
local now, user, token, id = clock(ARGV[1], ARGV[2]), ARGV[2], ARGV[3], ARGV[4]
local ended_at, ttl, most, fields = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local FIELDS = 9
local DROPPED_MAX = 100 -- in one call

-- What RQ's tools have requeued meanwhile stays.
local function drop(member)
  local of, job = string.match(member, '^(%S+) (%S+)$')
  if not of then
    redis.call('ZREM', BURIED, member)
  elseif not is_buried(job) or ours('ZSCORE', failed_key(of), job) then
    if is_buried(job) then redis.call('DEL', job_key(job), results_key(job)) end
    unbury(of, job)
    forget_empty_queue(of)
  end
end

-- The oldest that are too many, or whose time is over.
local function drop_oldest()
  local excess, over = ours('ZCARD', BURIED) - most, now - ttl * 1000
  local oldest = ours('ZRANGE', BURIED, 0, DROPPED_MAX - 1, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    if i > 2 * excess and tonumber(oldest[i + 1]) > over then break end
    drop(oldest[i])
  end
end

if holder(user) ~= token then return 0 end
if is_buried(id) then return 1 end
if not unless_full('HSET', job_key(id), unpack(ARGV, FIELDS, FIELDS - 1 + 2 * fields)) then
  redis.call('DEL', job_key(id), results_key(id))
  ours('LREM', queue_key(user), 0, id)
  forget_empty_queue(user)
  return 1
end
ours('LREM', queue_key(user), 0, id)
redis.call('HSET', job_key(id), 'status', 'failed', 'buried', '1', 'ended_at', ended_at)
redis.call('EXPIRE', job_key(id), ttl)
redis.call('DEL', results_key(id))
redis.call('XADD', results_key(id), '*', unpack(ARGV, FIELDS + 2 * fields))
redis.call('EXPIRE', results_key(id), ttl)
ours('ZADD', failed_key(user), digits(math.floor(now / 1000) + ttl), id)
redis.call('EXPIRE', failed_key(user), ttl)
ours('SADD', QUEUES, listed(user))
ours('ZADD', BURIED, digits(now), user .. ' ' .. id)
drop_oldest()
return 1
