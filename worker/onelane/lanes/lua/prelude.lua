-- Stands before every script: the keys (the catalogue is worker/onelane/keys.py), the clock, and how numbers are written.
--
-- Every script may run twice: its reply can be lost after it ran. The second run changes nothing.
local LANES, WAKE, FENCE, QUEUES, BURIED = 'lanes', 'wake', 'fence', 'rq:queues', 'buried'
local WAKE_MAX = 64

local function queue_name(user) return 'user:' .. user end
local function queue_key(user) return 'rq:queue:user:' .. user end
local function failed_key(user) return 'rq:failed:user:' .. user end
local function job_key(id) return 'rq:job:' .. id end
local function results_key(id) return 'rq:results:' .. id end
local function lock_key(user) return 'lock:user:' .. user end
local function session_key(user) return 'session:user:' .. user end
local function pace_key(user) return 'pace:user:' .. user end

-- Lua writes large numbers as 1.79e+15.
local function digits(number) return string.format('%.0f', number) end

-- ms since the epoch: Redis' own clock, unless a test gives another.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A Redis at maxmemory refuses a script whose first write may allocate, and lets everything pass after that. What
-- drains the lanes begins with this removal of nothing; enqueue does not, so that a full Redis takes no new jobs.
local function even_when_full() redis.call('DEL', 'nothing') end

-- Tell one idle worker to look. More tokens than workers would be noise.
local function wake_one()
  if redis.call('LLEN', WAKE) < WAKE_MAX then redis.call('LPUSH', WAKE, '1') end
end

-- When the user's lock ends, in ms; 0 when nobody holds it.
local function locked_until(user, now)
  local ends = tonumber(redis.call('HGET', lock_key(user), 'until') or '0')
  if ends > now then return ends end
  return 0
end

-- What else stands among the lanes was put there by hand, and would be leased for ever.
local UUID = '^' .. string.rep('%x', 8) .. string.rep('%-' .. string.rep('%x', 4), 4) .. string.rep('%x', 8) .. '$'
local function is_user(member) return string.find(member, UUID) ~= nil end

local function is_paused(user) return redis.call('ZSCORE', LANES, user) == 'inf' end

-- A dead message's job. What is no hash is nobody's job of ours.
local function is_buried(id) return redis.pcall('HEXISTS', job_key(id), 'buried') == 1 end

-- Takes the jobs of terminal messages off a lane: their ids are the arguments from `first` on. The list may hold one
-- anywhere; being the oldest it stands in front. Redriven while Redis was away it may still lie among the dead.
local function take_off(user, first)
  for i = first, #ARGV do
    redis.call('DEL', job_key(ARGV[i]), results_key(ARGV[i]))
    redis.call('LREM', queue_key(user), 1, ARGV[i])
    redis.call('ZREM', failed_key(user), ARGV[i])
  end
end

-- rq:queues lists only lanes with jobs or failures, by their whole keys, as RQ reads it.
local function forget_empty_queue(user)
  if redis.call('EXISTS', queue_key(user), failed_key(user)) == 0 then
    redis.call('SREM', QUEUES, queue_key(user))
  end
end
