-- Puts a message's job on its user's lane, makes the lane due and wakes a worker, in one step: a message never waits
-- without a worker that can find it. A job that is there already is left there, unless it is buried: then it waits
-- again. A full Redis takes no job: the lane is due without one, and who holds it learns that something came.
-- ARGV: now, user, message id, then the job's hash as field, value, …
-- Returns 1 when the job was added, 0 when it was there, -1 when Redis is full.
local now, user, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local job, added = job_key(id), 0
if is_buried(id) then
  redis.call('DEL', job, results_key(id))
  unbury(user, id)
  ours('LREM', queue_key(user), 0, id) -- RQ's own requeue puts it there
end
-- The rate limit also holds for a lane that was empty for a while.
local due = math.max(now, paced_until(user, now))
if redis.call('EXISTS', job) == 0 then
  if not unless_full('HSET', job, unpack(ARGV, 4)) then
    if holder(user) then redis.call('HSET', lock_key(user), 'news', '1') end
    add_lane(user, due, DUE_WHEN_FULL_MAX)
    return -1
  end
  ours('RPUSH', queue_key(user), id)
  ours('SADD', QUEUES, listed(user))
  added = 1
end
add_lane(user, due, DUE_WHEN_FULL_MAX)
return added
