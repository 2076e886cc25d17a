-- Removes the jobs of terminal messages from lanes. Then each lane's holder goes on, or it is released or removed.
-- Work is also what a full Redis has taken no job of since the lease began (`news`), and what the holder was kept from
-- by a pause that has ended since (`resumed`).
-- For the holder alone: another token changes and removes nothing, since the message may have been redriven.
-- ARGV: now, JSON [{user, token, done: ids of the terminal messages,
--       may_go_on: the quantum is not used up, has_more: Postgres has further waiting messages,
--       foreign: how many jobs on the list are not messages of this user, pause: the user is paused,
--       session: its id ('' : leave the cache alone), session_ms: to cache it (0: forget it),
--       pace_ms: between turns that the rate limit asks for (0: none), runs: turns that began under this lease}, …]
-- Returns for each go_on (the lease stays), released (a later lease goes on), forgotten (nothing waits), paused, or lost.

-- First the session's id: a full Redis keeps nothing that is only of use, and for hours.
local function cache_session(user, id, ms)
  if id == '' then return end
  local is_cached = ms > 0 and unless_full('SET', session_key(user), id, 'PX', ms)
  if not is_cached then redis.call('DEL', session_key(user)) end
end

-- Returns how many jobs are on the lane.
local function jobs_left(user)
  if redis.call('EXISTS', queue_key(user), failed_key(user)) > 0 then return ours('LLEN', queue_key(user)) end
  finally('SREM', QUEUES, listed(user))
  return 0
end

return for_each(cjson.decode(ARGV[2]), clock(ARGV[1]), function(lane, now)
  local user = lane.user
  local lock = released[user] and {} or ours('HMGET', lock_key(user), 'token', 'until', 'news', 'wanted', 'resumed')
  if lock[1] ~= lane.token then return 'lost' end
  cache_session(user, lane.session, lane.session_ms)
  even_when_full()
  take_off(user, lane.done)

  local due = left_alone(paced(user, now, lane.pace_ms, lane.runs), now, lock[4])
  local is_resumed = lane.pause and lock[5] and not is_paused(user)
  local has_work = jobs_left(user) > lane.foreign or lane.has_more or lock[3] or is_resumed
  local stays_paused = (lane.pause and not is_resumed) or (has_work and is_paused(user))
  local is_leased = (tonumber(lock[2]) or 0) > now
  if has_work and lane.may_go_on and not stays_paused and due <= now and is_leased then return 'go_on' end

  release(user)
  if not has_work then
    finally('ZREM', LANES, user)
    return 'forgotten'
  elseif stays_paused then
    ours('ZADD', LANES, '+inf', user)
    return 'paused'
  end
  ours('ZADD', LANES, digits(due), user)
  wake_one()
  return 'released'
end)
