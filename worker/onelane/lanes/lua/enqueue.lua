-- Puts a message's job on its user's lane, makes the lane due and wakes a worker, in one step: a message never waits
-- without a worker that can find it. A job that is there already is left there, unless it is buried: then it waits
-- again. Its first write may allocate memory: a full Redis refuses it, and the reconciler tries again.
-- ARGV: now, user, message id, then the job's hash as field, value, …
-- Returns 1 when the job was added, else 0.
local now, user, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local job = job_key(id)
local added = 0
if is_buried(id) then
  redis.call('DEL', job, results_key(id))
  ours('ZREM', failed_key(user), id)
  ours('LREM', queue_key(user), 0, id) -- RQ's own requeue puts it there
end
if redis.call('EXISTS', job) == 0 then
  redis.call('HSET', job, unpack(ARGV, 4))
  ours('RPUSH', queue_key(user), id)
  ours('SADD', QUEUES, queue_key(user))
  added = 1
end
-- The rate limit also holds for a lane that was empty for a while.
local due = math.max(now, paced_until(user, now))
if ours('ZADD', LANES, 'NX', digits(due), user) == 1 then wake_one() end
return added
