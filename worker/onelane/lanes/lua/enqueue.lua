-- Puts messages' jobs on their users' lanes, makes the lanes due and wakes workers, in one step: a message never waits
-- without a worker that can find it. A job that is there already is left there, unless it is buried: then it waits
-- again. A full Redis takes no job: the lane is due without one, and who holds it learns that something came.
-- A lane that had no work may wait for more of its user, to be answered together: its score is the end of a silence.
-- ARGV: now, JSON [field, value, …] of all jobs' hashes, JSON [{user, id: of the message, fields: of its own job,
--       wait: {quiet_ms, longest_ms: in all, most: jobs, is_over: nothing more is waited for}, where it may,
--       newer: its number, where it may throw away the turn that runs}, …]
-- Returns for each 1 when the job was added, 0 when it was there, -1 when Redis is full.
local fields = cjson.decode(ARGV[2])

-- Returns whether the job is new; nil in a full Redis.
local function add_job(user, item)
  local job = job_key(item.id)
  local own = { job, 'origin', queue_name(user), unpack(item.fields) }
  for _, part in ipairs(fields) do own[#own + 1] = part end
  local added = unless_full('HSET', unpack(own))
  if added == (#own - 1) / 2 then return true end
  if is_buried(item.id) then
    redis.call('DEL', job, results_key(item.id))
    unbury(user, item.id)
    ours('LREM', queue_key(user), 0, item.id) -- RQ's own requeue puts it there
    redis.call('HSET', unpack(own))
    return true
  end
  if added or redis.call('EXISTS', job) == 1 then return false end
  return nil
end

-- Add a lane that waits, or move its wait's end: by a new job alone, and not while the lane is leased or parked. A wait
-- that is over keeps its place in the due order.
-- jobs: how many are on the lane; nil: none is new.
local function wait_for_more(user, wait, now, may_begin, jobs)
  local key, score = collect_key(user), ours('ZSCORE', LANES, user)
  local began = now
  if score then
    began = collects_since(user, score)
    if not began or not jobs or tonumber(score) <= now then return end
  end
  local due = math.max(may_begin, math.min(began + wait.longest_ms, now + wait.quiet_ms))
  if wait.is_over or (jobs or 0) >= wait.most then due = math.max(may_begin, now) end
  if score and due ~= tonumber(score) then
    ours('ZADD', LANES, 'XX', digits(due), user)
    wake_one()
  elseif not score then
    add_lane(user, due, DUE_WHEN_FULL_MAX)
  end
  if due <= now then
    redis.call('DEL', key)
  else
    unless_full('SET', key, digits(began) .. ' ' .. digits(due), 'PX', wait.longest_ms)
  end
end

-- Let the worker that has the lane know of a newer message. It looks again and again: a signal that is lost costs time.
local NEWER_MS = 60000
local function tell_holder(user, seq, now)
  local lock = ours('HMGET', lock_key(user), 'until', 'worker')
  if lock[2] and locked_until(lock[1], now) > 0 then
    ours('HSET', newer_key(lock[2]), user, seq)
    redis.call('PEXPIRE', newer_key(lock[2]), NEWER_MS)
  end
end

local items, started = cjson.decode(ARGV[3]), clock(ARGV[1])
-- The rate limit also holds for a lane that was empty for a while.
local may_begin = all_paced_until(items, started)
local are_added = add_lanes(items, started, may_begin)

return for_each(items, started, function(item, now)
  local user = item.user
  local is_new, jobs = add_job(user, item), nil
  if is_new then
    jobs = ours('RPUSH', queue_key(user), item.id)
    finally('SADD', QUEUES, listed(user))
    if item.newer then tell_holder(user, item.newer, now) end
  elseif is_new == nil and holder(user) then
    redis.call('HSET', lock_key(user), 'news', '1')
  end
  if item.wait then
    wait_for_more(user, item.wait, now, may_begin[user], jobs)
  elseif not are_added then
    add_lane(user, math.max(now, may_begin[user]), DUE_WHEN_FULL_MAX)
  end
  return is_new == nil and -1 or is_new and 1 or 0
end)
