-- Counts the lanes by state, lists the first of each state, and lists the workers, last heard first. Reads only. Leased and parked lanes
-- differ by their lock. Only the locks of the lanes that are due next are read: a lease ends soon, so leased lanes come
-- before most of the parked ones.
-- ARGV: now, the most lanes to list of each state, the most locks to read, the most workers to list
-- Returns JSON {now_ms, redis_ms: its own clock, total, due, paused, ahead, looked_at, leased, collecting, oldest_ms or false,
--               is_suspended,
--               lanes: [[state, user, score, jobs, worker, fence, until], …], workers: [[name, heartbeat, lanes, isolation, slots], …]}
local now, rows_max, locks_max, workers_max = lanes_clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lanes, shown = {}, {}

local function holder_of(user)
  local lock = peek('HMGET', lock_key(user), 'worker', 'fence', 'until') or {}
  local ends = tonumber(lock[3] or '0')
  local fence = string.find(lock[2] or '', '^%d+$') and #lock[2] <= 18 and lock[2] or false
  if ends and ends > now and ends <= now + LEASE_MAX_MS then return { lock[1], fence, digits(ends) } end
  return false
end

local function show(state, user, score, lock)
  shown[state] = (shown[state] or 0) + 1
  if shown[state] > rows_max then return end
  lock = lock or { false, false, false }
  lanes[#lanes + 1] = { state, user, score, peek('LLEN', queue_key(user)) or 0, lock[1], lock[2], lock[3] }
end

local first = math.max(rows_max, 1)
local due = peek('ZRANGE', LANES, '-inf', digits(now), 'BYSCORE', 'LIMIT', 0, first, 'WITHSCORES') or {}
for i = 1, #due, 2 do show('due', due[i], due[i + 1], holder_of(due[i])) end

local leased, collecting = 0, 0
local later = '(' .. digits(now)
local ahead = peek('ZRANGE', LANES, later, '(+inf', 'BYSCORE', 'LIMIT', 0, locks_max, 'WITHSCORES') or {}
for i = 1, #ahead, 2 do
  local lock = holder_of(ahead[i])
  local state = lock and 'leased' or collects_since(ahead[i], ahead[i + 1]) and 'collecting' or 'parked'
  if state == 'leased' then leased = leased + 1 end
  if state == 'collecting' then collecting = collecting + 1 end
  show(state, ahead[i], ahead[i + 1], lock)
end

local paused = peek('ZRANGE', LANES, '+inf', '+inf', 'BYSCORE', 'LIMIT', 0, rows_max) or {}
for _, user in ipairs(paused) do show('paused', user, 'inf', holder_of(user)) end

local workers = {}
local heard = peek('ZREVRANGE', HEARTBEATS, 0, workers_max - 1, 'WITHSCORES') or {}
for i = 1, #heard, 2 do
  local worker = peek('HMGET', worker_key(heard[i]), 'lanes', 'death', 'isolation', 'slots') or {}
  if not worker[2] then workers[#workers + 1] = { heard[i], heard[i + 1], worker[1] or '0', worker[3] or '', worker[4] or '' } end
end

return cjson.encode({
  now_ms = digits(now),
  redis_ms = digits(redis_clock(ARGV[1])),
  total = peek('ZCARD', LANES) or 0,
  due = peek('ZCOUNT', LANES, '-inf', digits(now)) or 0,
  paused = peek('ZCOUNT', LANES, '+inf', '+inf') or 0,
  ahead = peek('ZCOUNT', LANES, later, '(+inf') or 0,
  looked_at = #ahead / 2,
  leased = leased,
  collecting = collecting,
  oldest_ms = due[2] or false,
  is_suspended = redis.call('EXISTS', SUSPENDED) == 1,
  lanes = lanes,
  workers = workers,
})
