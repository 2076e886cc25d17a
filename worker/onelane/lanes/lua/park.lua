-- Releases lanes until a later time: the whole lane waits, so that order holds. A delay of 0 makes it due now.
-- For the holder alone. A paused lane stays paused.
-- ARGV: now, JSON [{user, token, done: ids of messages that became terminal under this lease, delay_ms,
--       pace_ms: between turns that the rate limit asks for (0: none), runs: turns that began under this lease}, …]
-- Returns for each 1, or 0 when the lease was lost.
return for_each(cjson.decode(ARGV[2]), clock(ARGV[1]), function(lane, now)
  local user = lane.user
  local lock = released[user] and {} or ours('HMGET', lock_key(user), 'token', 'wanted')
  if lock[1] ~= lane.token then return 0 end
  even_when_full()
  local due = math.max(now + lane.delay_ms, paced(user, now, lane.pace_ms, lane.runs))
  due = left_alone(due, now, lock[2])
  release(user)
  take_off(user, lane.done)
  if not is_paused(user) then
    ours('ZADD', LANES, digits(due), user)
    wake_one()
  end
  return 1
end)
