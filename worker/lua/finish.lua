-- Takes what became terminal off a lane, and lets its holder go on, hands the lane on, or forgets it.
-- For the holder alone: another's token changes nothing, and removes nothing (the message may have been redriven).
-- ARGV: now, user, token,
--       may go on (1: the quantum is not used up), more (1: Postgres has further waiting messages),
--       foreign (how many jobs on the list are not ours and no work), pause (1: the user is paused),
--       session id ('' : leave the cache alone), ms to cache it (0: forget it),
--       ms between turns that the rate limit asks for (0: none), then the ids of the terminal messages
-- Returns go_on (the lease stays), released (somebody's turn later), forgotten (nothing waits), paused, or lost.
local now, user, token = clock(ARGV[1]), ARGV[2], ARGV[3]
local may_go_on, more, foreign, pause = ARGV[4] == '1', ARGV[5] == '1', tonumber(ARGV[6]), ARGV[7] == '1'
local session_id, session_ms, pace_ms = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local lock = redis.call('HMGET', lock_key(user), 'token', 'until')
if lock[1] ~= token then return 'lost' end

for i = 11, #ARGV do
  redis.call('DEL', job_key(ARGV[i]))
  redis.call('LREM', queue_key(user), 1, ARGV[i])
end
if session_id ~= '' then
  if session_ms > 0 then
    redis.call('SET', session_key(user), session_id, 'PX', session_ms)
  else
    redis.call('DEL', session_key(user))
  end
end

-- The rate limit: a minute's allowance may be used at once, then turns come one by one. Nothing is dropped.
local due = now
if pace_ms > 0 and #ARGV > 10 then
  local used = math.max(now, tonumber(redis.call('GET', pace_key(user)) or '0')) + pace_ms
  redis.call('SET', pace_key(user), digits(used), 'PX', digits(used - now))
  due = math.max(now, used - 60000 + pace_ms)
end

local jobs = redis.call('LLEN', queue_key(user))
local has_work = more or jobs > foreign
local stays_paused = pause or is_paused(user)
if has_work and may_go_on and not stays_paused and due <= now and tonumber(lock[2]) > now then return 'go_on' end

redis.call('DEL', lock_key(user))
if jobs == 0 then forget_empty_queue(user) end
if stays_paused then
  redis.call('ZADD', LANES, '+inf', user)
  return 'paused'
elseif has_work then
  redis.call('ZADD', LANES, digits(due), user)
  wake_one()
  return 'released'
end
redis.call('ZREM', LANES, user)
return 'forgotten'
