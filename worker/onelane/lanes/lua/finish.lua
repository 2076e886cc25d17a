-- Removes the jobs of terminal messages from a lane. Then its holder goes on, or the lane is released or removed.
-- Work is also what a full Redis has taken no job of since the lease began (`news`).
-- For the holder alone: another token changes and removes nothing, since the message may have been redriven.
-- ARGV: now, user, token,
--       may go on (1: the quantum is not used up), more (1: Postgres has further waiting messages),
--       foreign (how many jobs on the list are not messages of this user), pause (1: the user is paused),
--       session id ('' : leave the cache alone), ms to cache it (0: forget it),
--       ms between turns that the rate limit asks for (0: none), turns that began under this lease,
--       then the ids of the terminal messages
-- Returns go_on (the lease stays), released (a later lease goes on), forgotten (nothing waits), paused, or lost.
local now, user, token = clock(ARGV[1]), ARGV[2], ARGV[3]
local may_go_on, more, foreign, pause = ARGV[4] == '1', ARGV[5] == '1', tonumber(ARGV[6]), ARGV[7] == '1'
local session_id, session_ms = ARGV[8], tonumber(ARGV[9])
local lock = ours('HMGET', lock_key(user), 'token', 'until', 'news')
if lock[1] ~= token then return 'lost' end

-- First the session's id: a full Redis keeps nothing that is only of use, and for hours.
if session_id ~= '' then
  local is_cached = session_ms > 0 and unless_full('SET', session_key(user), session_id, 'PX', session_ms)
  if not is_cached then redis.call('DEL', session_key(user)) end
end
even_when_full()
take_off(user, 12)

local due = paced(user, now, tonumber(ARGV[10]), tonumber(ARGV[11]))
local jobs = ours('LLEN', queue_key(user))
if jobs == 0 then forget_empty_queue(user) end
local has_work = more or jobs > foreign or lock[3]
local stays_paused = pause or is_paused(user)
if has_work and may_go_on and not stays_paused and due <= now and (tonumber(lock[2]) or 0) > now then return 'go_on' end

redis.call('DEL', lock_key(user))
if not has_work then
  ours('ZREM', LANES, user)
  return 'forgotten'
elseif stays_paused then
  ours('ZADD', LANES, '+inf', user)
  return 'paused'
end
ours('ZADD', LANES, digits(due), user)
wake_one()
return 'released'
