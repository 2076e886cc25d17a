-- Finds dead messages that somebody put back on their lane with RQ's own tools, and forgets lanes without dead ones.
-- ARGV: users that had a dead message
-- Returns the ids of buried jobs that stand on a lane, as user, id, user, id, …
local found = {}
for _, user in ipairs(ARGV) do
  local any = false
  for _, id in ipairs(redis.call('LRANGE', queue_key(user), 0, 999)) do
    if redis.call('HEXISTS', job_key(id), 'buried') == 1 then
      found[#found + 1], found[#found + 2] = user, id
      any = true
    end
  end
  if not any and redis.call('EXISTS', failed_key(user)) == 0 then
    redis.call('SREM', BURIED, user)
    forget_empty_queue(user)
  end
end
return found
