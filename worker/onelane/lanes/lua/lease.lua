-- Takes the due lanes with the lowest scores for a worker's free slots, so many at once, and locks each for ttl ms. A lane
-- whose lock is still valid is not due, whatever its score is. A lock that ended without being released is taken over when
-- its holder is gone: it died or hangs. So is a lane that was taken over, and given back before anything had begun: the lock
-- keeps whose it was (`lost`).
-- A second run with the same call number returns the same leases, which last for ttl ms from then: by the time it is asked
-- they may have ended. Those that another worker has taken over since are left out.
-- ARGV: now, worker, call number, free slots, ttl in ms, the time that the worker expects ('': it has not called before)
-- Returns JSON {leases: [[user, token, fence, taken over, session id or false, the token taken from or false], …],
--               next_due_ms: ms from now or -1, now_ms, stepped_ms: by how much Redis' clock has stepped}
local worker, call, ttl = ARGV[2], ARGV[3], tonumber(ARGV[5])
local free = tonumber(ARGV[4])
local now, stepped = confirmed_clock(ARGV[1], ARGV[6], ttl)
local reply_key = lease_key(worker)
local ends = digits(now + ttl)

-- When a worker was heard last, and when again after a silence; 0 for what nobody knows.
local function heard(name)
  local beat = ours('HMGET', beat_key(name), 'last', 'resumed')
  return { last = tonumber(beat[1] or '0') or 0, resumed = tonumber(beat[2] or '0') or 0 }
end

-- Whether the last holder of a lock that is there is gone: it let its lease end, and was not heard meanwhile. Who is
-- heard is slow, or could not send its release; who said goodbye to RQ has ended in order. When we were not heard
-- either, Redis was away, and nobody's silence means anything. A lease that a step of the clock has met proves nothing,
-- nor does one that ends later than any lease. What nobody knows any more counts as gone.
local function holder_is_gone(lock)
  local ended, life = tonumber(lock[1] or ''), tonumber(lock[3] or '')
  if ended and (ended <= calm or ended > now) then return false end
  if not lock[2] or not ended or not life then return true end
  local silent = ended - SILENCE * life
  if lock[2] == worker or heard(lock[2]).last > silent then return false end
  if redis.pcall('HEXISTS', worker_key(lock[2]), 'death') == 1 then return false end
  local we = heard(worker)
  return we.last == 0 or (we.last > silent and we.resumed <= silent)
end

-- The locks of due lanes, by user. Mostly there are none: one command tells.
local function locks_of(due)
  local names, locks = {}, {}
  for i, user in ipairs(due) do names[i] = lock_key(user) end
  if #due > 0 and redis.call('EXISTS', unpack(names)) > 0 then
    for _, user in ipairs(due) do locks[user] = ours('HMGET', lock_key(user), 'until', 'worker', 'life', 'token', 'lost') end
  end
  return locks
end

-- Removes what is no user from the due lanes, and gives those that are held their right scores. Returns the others.
local function free_lanes(due)
  local lanes, locks = {}, locks_of(due)
  for _, user in ipairs(due) do
    local lock = locks[user]
    local held = lock and locked_until(lock[1], now) or 0
    if held > 0 then
      redis.call('ZADD', LANES, digits(held), user)
    elseif not is_user(user) then
      redis.call('ZREM', LANES, user)
    else
      lanes[#lanes + 1] = { user = user, lock = lock }
    end
  end
  return lanes
end

-- Raises the fence for so many leases; returns the one before the first.
local function raise_fence(count)
  local seed = redis_clock(ARGV[1])
  if not fence_now(seed) then redis.call('SET', FENCE, digits(seed * 1000)) end
  return redis.call('INCRBY', FENCE, count) - count
end

-- The cached ids of sessions. What somebody else wrote there may be no text, which JSON cannot hold.
local function cached_sessions(lanes)
  local session_keys = {}
  for i, lane in ipairs(lanes) do session_keys[i] = session_key(lane.user) end
  local cached = redis.call('MGET', unpack(session_keys))
  for i, id in ipairs(cached) do
    if id and not string.match(id, '^[%x-]+$') then cached[i] = 'malformed' end
  end
  return cached
end

-- Removes the locks that are there, and returns whose they are.
local function remove_locks(lanes)
  local there = {}
  for _, lane in ipairs(lanes) do
    there[lane.user] = lane.lock ~= nil and redis.call('DEL', lock_key(lane.user)) == 1
  end
  return there
end

local function take(lanes, leases)
  local fence, scores = raise_fence(#lanes), {}
  local was_there = remove_locks(lanes)
  local sessions = cached_sessions(lanes)
  for i, lane in ipairs(lanes) do
    local user, own = lane.user, digits(fence + i)
    local token = worker .. ':' .. own
    local taken_over = was_there[user] and holder_is_gone(lane.lock) and 1 or 0
    redis.call('HSET', lock_key(user), 'token', token, 'fence', own, 'until', ends, 'worker', worker, 'life', ttl)
    redis.call('PEXPIRE', lock_key(user), ttl + LOCK_KEPT_MS)
    scores[2 * i - 1], scores[2 * i] = ends, user
    local lost = taken_over == 1 and string.match(lane.lock[4] or lane.lock[5] or '', '^[%w.:_-]+$') or false
    if lost then redis.call('HSET', lock_key(user), 'lost', lost) end
    leases[#leases + 1] = { user, token, own, taken_over, sessions[i], lost }
  end
  redis.call('ZADD', LANES, unpack(scores))
end

local function take_due()
  local leases = {}
  for _ = 1, 8 do
    local most = free - #leases
    local due = most > 0 and ours('ZRANGE', LANES, '-inf', digits(now), 'BYSCORE', 'LIMIT', 0, most) or {}
    if #due > 0 then redis.call('DEL', reply_key) end -- first, so that a full Redis allows what follows: lanes must drain
    local lanes = free_lanes(due)
    if #lanes > 0 then take(lanes, leases) end
    if #lanes == #due then break end
  end
  return leases
end

-- Those of the last call's leases that are still held, extended; none where somebody else has written what cannot be read.
local function still_held(text)
  local held, is_read, leases = {}, pcall(cjson.decode, text)
  if not is_read or type(leases) ~= 'table' then return held end
  for _, lease in ipairs(leases) do
    local is_lease = type(lease) == 'table' and type(lease[1]) == 'string' and is_user(lease[1])
    if is_lease and holder(lease[1]) == lease[2] then
      even_when_full()
      extend(lease[1], ends, ttl)
      held[#held + 1] = lease
    end
  end
  return held
end

local last = ours('HMGET', reply_key, 'call', 'leases')
local leases
if last[1] == call then
  leases = still_held(last[2])
else
  leases = take_due()
  if #leases > 0 then
    redis.call('HSET', reply_key, 'call', call, 'leases', cjson.encode(leases))
    redis.call('PEXPIRE', reply_key, 60000)
  end
end

local next_due = -1
local first = ours('ZRANGE', LANES, 0, 0, 'WITHSCORES')
if first[2] and first[2] ~= 'inf' then next_due = math.max(0, tonumber(first[2]) - now) end
-- Nothing more is due: the tokens that are left would wake workers for nothing.
if next_due ~= 0 then redis.call('DEL', WAKE) end
return cjson.encode({ leases = leases, next_due_ms = next_due, now_ms = digits(now), stepped_ms = stepped })
