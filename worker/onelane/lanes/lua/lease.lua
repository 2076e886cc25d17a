-- Takes the due lanes with the lowest scores for a worker's free slots, and locks each for ttl ms. A lane whose lock is
-- still valid is not due, whatever its score is. A lock that ended without being released is taken over when its holder is
-- gone: it died or hangs. A second run with the same call number returns the same leases, except those that another
-- worker has taken over since.
-- ARGV: now, worker, call number, free slots, ttl in ms, the time that the worker expects ('': it has not called before)
-- Returns JSON {leases: [[user, token, fence, taken over, session id or false], …], next_due_ms: ms from now or -1,
--               now_ms, stepped_ms: by how much Redis' clock has stepped}
local worker, call, free, ttl = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now, stepped = confirmed_clock(ARGV[1], ARGV[6], ttl)
local reply_key = lease_key(worker)
local ends = digits(now + ttl)

-- If somebody else wrote the key it may be of another type, or not text, which JSON cannot hold.
local function cached_session(user)
  local cached = redis.pcall('GET', session_key(user))
  if type(cached) == 'string' and not string.match(cached, '^[%x-]+$') then return 'malformed' end
  if type(cached) == 'table' then return 'malformed' end
  return cached
end

-- When a worker was heard last, and when again after a silence; 0 for what nobody knows.
local function heard(name)
  local beat = ours('HMGET', beat_key(name), 'last', 'resumed')
  return { last = tonumber(beat[1] or '0') or 0, resumed = tonumber(beat[2] or '0') or 0 }
end

-- Whether the lane's last holder is gone: it let its lease end, and was not heard meanwhile. Who is heard is slow, or
-- could not send its release; who said goodbye to RQ has ended in order. When we were not heard either, Redis was away,
-- and nobody's silence means anything. A lease that a step of the clock has met proves nothing, nor does one that ends
-- later than any lease. What nobody knows any more counts as gone.
local function holder_is_gone(user)
  local lock = ours('HMGET', lock_key(user), 'worker', 'until', 'life')
  local ended, life = tonumber(lock[2] or ''), tonumber(lock[3] or '')
  if ended and (ended <= calm or ended > now) then return false end
  if not lock[1] or not ended or not life then return redis.call('EXISTS', lock_key(user)) == 1 end
  local silent = ended - SILENCE * life
  if lock[1] == worker or heard(lock[1]).last > silent then return false end
  if redis.pcall('HEXISTS', worker_key(lock[1]), 'death') == 1 then return false end
  local we = heard(worker)
  return we.last == 0 or (we.last > silent and we.resumed <= silent)
end

local function take(user)
  local taken_over = holder_is_gone(user) and 1 or 0
  local fence = digits(redis.call('INCR', FENCE))
  local token = worker .. ':' .. fence
  redis.call('DEL', lock_key(user))
  redis.call('HSET', lock_key(user), 'token', token, 'fence', fence, 'until', ends, 'worker', worker,
    'life', ttl)
  redis.call('PEXPIRE', lock_key(user), ttl + LOCK_KEPT_MS)
  redis.call('ZADD', LANES, ends, user)
  return { user, token, fence, taken_over, cached_session(user) }
end

local function take_due()
  local leases = {}
  local seed = redis_clock(ARGV[1])
  if not fence_now(seed) then redis.call('SET', FENCE, digits(seed * 1000)) end
  for _ = 1, 8 do
    local due = {}
    if free > 0 then due = ours('ZRANGE', LANES, '-inf', digits(now), 'BYSCORE', 'LIMIT', 0, free) end
    if #due == 0 then break end
    for _, user in ipairs(due) do
      local held = locked_until(user, now)
      if held > 0 then
        redis.call('ZADD', LANES, digits(held), user)
      elseif not is_user(user) then
        redis.call('ZREM', LANES, user)
      else
        leases[#leases + 1] = take(user)
        free = free - 1
      end
    end
  end
  return leases
end

-- Those of the last call's leases that are still held; none where somebody else has written what cannot be read.
local function still_held(text)
  local held, is_read, leases = {}, pcall(cjson.decode, text)
  if not is_read or type(leases) ~= 'table' then return held end
  for _, lease in ipairs(leases) do
    local is_lease = type(lease) == 'table' and type(lease[1]) == 'string' and is_user(lease[1])
    if is_lease and holder(lease[1]) == lease[2] then held[#held + 1] = lease end
  end
  return held
end

local last = ours('HMGET', reply_key, 'call', 'leases')
local leases
if last[1] == call then
  leases = still_held(last[2])
else
  redis.call('DEL', reply_key) -- first, so that a full Redis allows what follows: lanes must drain
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
