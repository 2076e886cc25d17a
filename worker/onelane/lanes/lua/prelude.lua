-- Comes before every script: the keys (worker/onelane/keys.py lists them all), the clock, and how numbers are written.
--
-- Every script may run twice, since its reply can be lost after it ran. The second run changes nothing, but that leases
-- last from then.
-- @KIND@, @QUEUE@ and @PREFIX@ are replaced when the scripts are loaded: one set of scripts for each kind of lane.
local KIND, QUEUE, PREFIX = '@KIND@', '@QUEUE@', '@PREFIX@'
local KINDS = { 'in', 'out' }
local LANES, WAKE = PREFIX .. 'lanes:' .. KIND, PREFIX .. 'wake:' .. KIND
local FENCE, INSTANCE, NUMBERS = PREFIX .. 'fence', PREFIX .. 'instance', PREFIX .. 'numbers'
local MINUTES = PREFIX .. 'minutes'
local UNSURE, HEARTBEATS = PREFIX .. 'unsure', PREFIX .. 'heartbeats'
local RECONCILE_CURSOR = PREFIX .. 'cursor:' .. KIND
local QUEUES, WORKERS, SUSPENDED = PREFIX .. 'rq:queues', PREFIX .. 'rq:workers', PREFIX .. 'rq:suspended'
local WAKE_MAX = 64

local function queue_name(user) return QUEUE .. user end
local function queue_key(user) return PREFIX .. 'rq:queue:' .. QUEUE .. user end
local function failed_key(user) return PREFIX .. 'rq:failed:' .. QUEUE .. user end
local function job_key(id) return PREFIX .. 'rq:job:' .. id end
local function results_key(id) return PREFIX .. 'rq:results:' .. id end
local function lock_key(user) return PREFIX .. 'lock:' .. KIND .. ':' .. user end
local function session_key(user) return PREFIX .. 'session:user:' .. user end
local function beat_key(worker) return PREFIX .. 'beat:' .. worker end
local function worker_key(worker) return PREFIX .. 'rq:worker:' .. worker end
local function on_lane_key(queue) return PREFIX .. 'rq:workers:' .. queue end
local function pace_key(user) return PREFIX .. 'pace:' .. KIND .. ':' .. user end
local function collect_key(user) return PREFIX .. 'collect:' .. user end
local function newer_key(worker) return PREFIX .. 'newer:' .. worker end
local function lease_key(worker) return PREFIX .. 'lease:' .. KIND .. ':' .. worker end
local function buried_key(kind) return PREFIX .. 'buried:' .. kind end
local function reconciled_key(kind) return PREFIX .. 'reconciled:' .. kind end
local function duty_key(name) return PREFIX .. 'duty:' .. name end
local function counted_key(process) return PREFIX .. 'counted:' .. process end

local BURIED, RECONCILED = buried_key(KIND), reconciled_key(KIND)

-- How rq:queues and rq:workers name a queue and a worker: by their keys, as RQ has them, without our prefix.
local function listed(user) return 'rq:queue:' .. QUEUE .. user end
local function listed_worker(worker) return 'rq:worker:' .. worker end
local function listed_worker_key(name) return PREFIX .. name end

-- Call a command on a key of ours. Under another type somebody else has written it, and it would stop its lane, or all
-- lanes, for ever: such a key is removed, which Redis' own log notes.
local function ours(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then
    redis.log(redis.LOG_WARNING, 'onelane: removed a key of another type: ' .. key)
    redis.call('DEL', key)
  end
  return redis.call(command, key, ...)
end

-- What Redis remembers of itself and whose it is: by the id of the database whose lanes these are. Ours is the last
-- argument; an empty one is not compared. Of another database's lanes nothing is read and nothing changed. A Redis that
-- has none, because it is new or lost its memory, becomes ours; a full one a little later. The last argument but one is
-- 0 for a process that has found another's here: it takes nothing over when that one's Redis loses its memory.
local instance = ours('HMGET', INSTANCE, 'id', 'offset', 'seen', 'slack', 'calm')
local database, may_claim = table.remove(ARGV), table.remove(ARGV) == '1'
if database ~= '' and instance[1] ~= database then
  if instance[1] or not may_claim then return redis.error_reply('FOREIGN these are the lanes of another database') end
  redis.pcall('HSET', INSTANCE, 'id', database)
end

-- Read without changing anything; nil where there is an error.
local function peek(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

-- Format a number without an exponent: Lua itself writes large ones as 1.79e+15.
local function digits(number) return string.format('%.0f', number) end

-- Redis at maxmemory refuses a script's first write if it may allocate memory, and none after a DEL.
local has_written = false
local function even_when_full()
  if not has_written then redis.call('DEL', PREFIX .. 'nothing') end
  has_written = true
end

-- A member that is not a UUID was added by hand, and would be leased for ever.
local UUID = '^' .. string.rep('%x', 8) .. string.rep('%-' .. string.rep('%x', 4), 4) .. string.rep('%x', 8) .. '$'
local function is_user(member) return string.find(member, UUID) ~= nil end

-- The lanes' clock, in ms since the epoch: all scores, leases and paces are times of it. Redis' own clock may be set back
-- or ahead, by its host or by a fail-over; this one never runs back, and takes a step ahead out as soon as a worker calls.
-- `instance` holds how far it is ahead of Redis' clock (offset), the last time that a worker was given (seen), how much
-- later than that it can be by itself while workers call (slack), and by when a lease may end without a death (calm).
local function whole(text)
  if text and #text <= 15 and string.find(text, '^%-?%d+$') then return tonumber(text) end
end
local OFFSET, SEEN, SLACK = whole(instance[2]) or 0, whole(instance[3]), whole(instance[4]) or 0
local calm = whole(instance[5]) or 0

-- Redis' own clock, unless a test gives another.
local function redis_clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The lanes' clock, for a script that only reads.
local function lanes_clock(given)
  if given ~= '' then return tonumber(given) end
  return math.max(redis_clock(given) + OFFSET, SEEN or 0)
end

-- The lanes' clock, for a script that sets the times of lanes. Where Redis' clock may have stepped ahead since a worker
-- called, each is noted with the score that it had.
local UNSURE_MAX = 10000
local is_unsure = false
local function note_unsure(user)
  if is_unsure and is_user(user) and ours('HLEN', UNSURE) < UNSURE_MAX then
    redis.pcall('HSETNX', UNSURE, KIND .. ':' .. user, ours('ZSCORE', LANES, user) or '')
  end
end

local function clock(given, user)
  local now = lanes_clock(given)
  is_unsure = given == '' and SEEN ~= nil and now > SEEN + SLACK
  if user then note_unsure(user) end
  return now
end

-- Takes a step ahead out of the scores that were set since, as far as they are ahead.
local function take_back(step, now)
  local unsure = ours('HGETALL', UNSURE)
  for i = 1, #unsure, 2 do
    local kind, user = string.match(unsure[i], '^(%l+):(.+)$')
    local score = kind and redis.call('ZSCORE', PREFIX .. 'lanes:' .. kind, user)
    if score and score ~= 'inf' and score ~= unsure[i + 1] and tonumber(score) > now then
      redis.call('ZADD', PREFIX .. 'lanes:' .. kind, digits(score - step), user)
    end
  end
end

-- The lanes' clock, for a worker. It knows by a clock that never steps what time to expect; '' when it has not called
-- before. What Redis' clock is ahead of that by more than half a lease, it stepped: the lanes' clock goes on as if it had
-- not. Nobody knows better than a worker's first call: after a night without workers, a night has passed.
-- Returns the time, and by how many ms Redis' clock has stepped, 0 when by less than half a lease.
local SEEN_EVERY_MS = 500
local function confirmed_clock(given, expected, ttl)
  if given ~= '' then return tonumber(given), 0 end
  local shown, known, slack = redis_clock(given) + OFFSET, whole(expected), math.floor(ttl / 2)
  local least = SEEN or known or shown
  known = known and math.max(known, least)
  local now = shown
  if shown < least then now = math.min(known or least, least + slack) end
  if known and SEEN and shown > known + slack then now = known end
  local step = shown - now
  if step ~= 0 or now - (SEEN or 0) >= SEEN_EVERY_MS then
    even_when_full()
    ours('HSET', INSTANCE, 'offset', digits(OFFSET - step), 'seen', digits(now), 'slack', digits(slack))
  end
  if step > slack then take_back(step, now) end
  if SEEN and shown > SEEN + SLACK then redis.call('DEL', UNSURE) end
  if math.abs(step) <= slack then return now, 0 end
  calm = now + ttl + slack
  redis.call('HSET', INSTANCE, 'calm', digits(calm))
  return now, step
end

-- Call a command that may allocate memory as the script's first write; return nil when Redis is full. What follows then
-- is allowed, but for the other items of a list: they get no more than if each were alone.
local is_full = false
local function unless_full(command, ...)
  if is_full then return nil end
  local answer = redis.pcall(command, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if not string.find(answer.err, 'OOM ', 1, true) then return ours(command, ...) end
  even_when_full()
  is_full = true
  return nil
end

-- Wake one idle worker, when the script is done. More tokens than workers would wake nobody else.
local tokens = {}
local function wake_one()
  if #tokens < WAKE_MAX then tokens[#tokens + 1] = '1' end
end

local function wake_workers()
  if #tokens == 0 then return end
  if ours('LPUSH', WAKE, unpack(tokens)) > WAKE_MAX then redis.call('LTRIM', WAKE, 0, WAKE_MAX - 1) end
end

-- Add a lane that is to be due then, unless it is there. A full Redis gets no more while `most` are due by then.
-- Returns whether the lane is there now.
local DUE_WHEN_FULL_MAX = 1000
local function add_lane(user, due, most)
  local added = unless_full('ZADD', LANES, 'NX', digits(due), user)
  if added == 0 then return true end
  if not added then
    if ours('ZSCORE', LANES, user) then return true end
    if ours('ZCOUNT', LANES, '-inf', digits(due)) >= most then return false end
    redis.call('ZADD', LANES, digits(due), user)
  end
  wake_one()
  return true
end

-- Add the lanes of a list in one command, each due then or now; but for those that wait, which are added one by one.
-- Returns nil in a full Redis: then add each by itself.
local function add_lanes(items, now, due)
  local members = {}
  for _, item in ipairs(items) do
    note_unsure(item.user)
    if not item.wait then
      members[#members + 1] = digits(math.max(now, due[item.user]))
      members[#members + 1] = item.user
    end
  end
  if #members == 0 then return 0 end
  local added = unless_full('ZADD', LANES, 'NX', unpack(members))
  for _ = 1, added or 0 do wake_one() end
  return added
end

-- Since when a lane waits for more of its user. Its key holds that, and the score that the wait has set: where another
-- stands, a lease, a park or an operator's act has ended the wait. Returns nil then.
local function collects_since(user, score)
  local began, ends = string.match(peek('GET', collect_key(user)) or '', '^(%d+) (%d+)$')
  if KIND == 'in' and ends == score then return began end
end

-- When a lock ends, in ms, by its `until`; 0 when nobody holds it. What ends later than any lease is none.
local LEASE_MAX_MS = 600000
local LOCK_KEPT_MS = 86400000 -- after its lease: who finds it knows that nobody released it; a step ahead ends it not
local function locked_until(written, now)
  local ends = tonumber(written or '0')
  if ends and ends > now and ends <= now + LEASE_MAX_MS then return ends end
  return 0
end

local function is_paused(user) return ours('ZSCORE', LANES, user) == 'inf' end

-- A worker is heard three times in a lease's life, and every time with all of its leases. Who has not been heard for this
-- part of a life before a lease ended has died with it, or was cut off.
local SILENCE = 2 / 3

-- Whose lease holds the lane, by its token.
local function holder(user) return ours('HGET', lock_key(user), 'token') end

-- Lets a lease last for ttl ms, until `ends`, also one that ended: nobody took it over, since who leases has another token.
-- A paused lane keeps its score.
local function extend(user, ends, ttl)
  redis.call('HSET', lock_key(user), 'until', ends)
  redis.call('PEXPIRE', lock_key(user), ttl + LOCK_KEPT_MS)
  if not is_paused(user) then ours('ZADD', LANES, 'XX', ends, user) end
end

-- When the rate limit lets the user's next turn begin, perhaps long ago. What is later than we ever write is not ours.
local PACE_MAX_MS = 600000
local function pace_in(written, now)
  local due = tonumber(written or '0')
  if due and due <= now + PACE_MAX_MS then return due end
  return 0
end

local function paced_until(user, now) return pace_in(ours('GET', pace_key(user)), now) end

-- The same for the users of a list, by user: one command.
local function all_paced_until(items, now)
  local pace_keys, due = {}, {}
  for i, item in ipairs(items) do pace_keys[i] = pace_key(item.user) end
  for i, written in ipairs(redis.call('MGET', unpack(pace_keys))) do due[items[i].user] = pace_in(written, now) end
  return due
end

-- The rate limit: the turns of a minute may be used at once, then they come one by one. Nothing is dropped. The key
-- holds when the next turn may begin; the lock holds how many turns of this lease were counted, so that none counts
-- twice. Every run of a handler is a turn, whatever came of it.
-- pace: ms between turns (0: no limit); runs: turns that began under this lease. Returns when the next may begin.
local function paced(user, now, pace, runs)
  if pace == 0 then return now end
  local allowance = 60000 - pace
  local allowed = paced_until(user, now)
  local counted = tonumber(ours('HGET', lock_key(user), 'paced') or '0') or 0
  if runs > counted then
    local sure = is_unsure and SEEN + SLACK or now
    allowed = math.max(allowed, sure - allowance) + pace * (runs - counted)
    redis.call('SET', pace_key(user), digits(allowed), 'PX', digits(allowed + allowance - sure))
    redis.call('HSET', lock_key(user), 'paced', runs)
  end
  return math.max(now, allowed)
end

-- When a lane that is released is due again: an operator's act that waits for it (hold.lua) gets it in between.
local WANTED_MS = 1000
local function left_alone(due, now, wanted)
  return wanted and math.max(due, now + WANTED_MS) or due
end

-- Whether this is a dead message's job. A key of another type is not a job of ours.
local function is_buried(id) return redis.pcall('HEXISTS', job_key(id), 'buried') == 1 end

-- The fence counter; nil when Redis has lost it, or somebody has written what is no counter: a number that no clock can
-- have seeded in ten years (a clock may be behind the time when this was written). What is below is exact as a double.
local WRITTEN_US, TEN_YEARS_US = 1767225600000000, 315360000000000
local function fence_max(now) return math.max(now * 1000, WRITTEN_US) + TEN_YEARS_US end
local function fence_now(now)
  local fence = redis.pcall('GET', FENCE)
  if type(fence) ~= 'string' or not string.find(fence, '^[1-9]%d*$') then return nil end
  local number = tonumber(fence)
  if number < fence_max(now) then return number end
  return nil
end

-- Removes a message's job from where the dead are.
local function unbury(user, id)
  ours('ZREM', failed_key(user), id)
  ours('ZREM', BURIED, user .. ' ' .. id)
end

-- Removes the jobs of terminal messages from a lane. A job may be anywhere in the list; mostly it is the first. A message
-- that was redriven while Redis was away may still be among the dead: only they have results.
local function take_off(user, done)
  for _, id in ipairs(done) do
    ours('LREM', queue_key(user), 1, id)
    if redis.call('DEL', job_key(id), results_key(id)) == 2 then unbury(user, id) end
  end
end

-- rq:queues holds only lanes with jobs or failures, by their whole keys, as RQ reads it.
local function forget_empty_queue(user)
  if redis.call('EXISTS', queue_key(user), failed_key(user)) == 0 then
    ours('SREM', QUEUES, listed(user))
  end
end

-- Adds a member to a set, or removes one, at the end of the script: one command for all items of a list.
local at_end = {}
local function finally(command, key, member)
  local last = at_end[key] or { command, key }
  last[#last + 1] = member
  at_end[key] = last
end

-- Releases a lock at the end of the script; for the items that follow it is gone.
local released = {}
local function release(user)
  released[user] = true
  finally('DEL', PREFIX .. 'nothing', lock_key(user))
end

-- Does something for each item of a list. One's error is its own answer, and keeps no other from its turn.
-- items: {{user, …}, …}. Returns an answer for each.
local function for_each(items, now, act)
  local answers = {}
  for i, item in ipairs(items) do
    note_unsure(item.user)
    local is_done, answer = pcall(act, item, now)
    if not is_done then answer = { err = type(answer) == 'table' and answer.err or tostring(answer) } end
    answers[i] = answer
  end
  for _, last in pairs(at_end) do ours(unpack(last)) end
  wake_workers()
  return answers
end
