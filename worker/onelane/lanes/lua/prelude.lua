-- Comes before every script: the keys (worker/onelane/keys.py lists them all), the clock, and how numbers are written.
--
-- Every script may run twice, since its reply can be lost after it ran. The second run changes nothing.
-- @KIND@ and @QUEUE@ are replaced when the scripts are loaded: one set of scripts for each kind of lane.
local KIND, QUEUE = '@KIND@', '@QUEUE@'
local LANES, WAKE, BURIED = 'lanes:' .. KIND, 'wake:' .. KIND, 'buried:' .. KIND
local FENCE, QUEUES = 'fence', 'rq:queues'
local WAKE_MAX = 64

local function queue_name(user) return QUEUE .. user end
local function queue_key(user) return 'rq:queue:' .. QUEUE .. user end
local function failed_key(user) return 'rq:failed:' .. QUEUE .. user end
local function job_key(id) return 'rq:job:' .. id end
local function results_key(id) return 'rq:results:' .. id end
local function lock_key(user) return 'lock:' .. KIND .. ':' .. user end
local function session_key(user) return 'session:user:' .. user end
local function pace_key(user) return 'pace:' .. KIND .. ':' .. user end

-- Format a number without an exponent: Lua itself writes large ones as 1.79e+15.
local function digits(number) return string.format('%.0f', number) end

-- ms since the epoch: Redis' own clock, unless a test gives another.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Redis at maxmemory refuses a script whose first write may allocate memory. A DEL first avoids that, so that lanes
-- drain; enqueue omits it, so that a full Redis gets no new jobs.
local function even_when_full() redis.call('DEL', 'nothing') end

-- Wake one idle worker. More tokens than workers would wake nobody else.
local function wake_one()
  if redis.call('LLEN', WAKE) < WAKE_MAX then redis.call('LPUSH', WAKE, '1') end
end

-- When the user's lock ends, in ms; 0 when nobody holds it.
local function locked_until(user, now)
  local ends = tonumber(redis.call('HGET', lock_key(user), 'until') or '0')
  if ends > now then return ends end
  return 0
end

-- A member that is not a UUID was added by hand, and would be leased for ever.
local UUID = '^' .. string.rep('%x', 8) .. string.rep('%-' .. string.rep('%x', 4), 4) .. string.rep('%x', 8) .. '$'
local function is_user(member) return string.find(member, UUID) ~= nil end

local function is_paused(user) return redis.call('ZSCORE', LANES, user) == 'inf' end

-- Whether this is a dead message's job. A key of another type is not a job of ours.
local function is_buried(id) return redis.pcall('HEXISTS', job_key(id), 'buried') == 1 end

-- Removes the jobs of terminal messages from a lane: their ids are the arguments from `first` on. A job may be anywhere
-- in the list; mostly it is the first. A message that was redriven while Redis was away may still be among the dead.
local function take_off(user, first)
  for i = first, #ARGV do
    redis.call('DEL', job_key(ARGV[i]), results_key(ARGV[i]))
    redis.call('LREM', queue_key(user), 1, ARGV[i])
    redis.call('ZREM', failed_key(user), ARGV[i])
  end
end

-- rq:queues holds only lanes with jobs or failures, by their whole keys, as RQ reads it.
local function forget_empty_queue(user)
  if redis.call('EXISTS', queue_key(user), failed_key(user)) == 0 then
    redis.call('SREM', QUEUES, queue_key(user))
  end
end
