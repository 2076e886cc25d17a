-- Removes a lane with all that is kept of its user, whoever holds it: `most` jobs at a time, with their tracebacks.
-- ARGV: user, most
-- Returns 1 while there are more jobs, else 0.
local user, most = ARGV[1], tonumber(ARGV[2])
local function erase(ids)
  for _, id in ipairs(ids) do
    if redis.pcall('HGET', job_key(id), 'origin') == queue_name(user) then redis.call('DEL', job_key(id), results_key(id)) end
    unbury(user, id)
  end
  return #ids
end
local waiting = erase(ours('LRANGE', queue_key(user), 0, most - 1))
if waiting > 0 then ours('LTRIM', queue_key(user), waiting, -1) end
local dead = erase(ours('ZRANGE', failed_key(user), 0, most - 1))
if waiting == most or dead == most then return 1 end
for _, member in ipairs(ours('ZRANGE', BURIED, 0, -1)) do
  if string.sub(member, 1, #user + 1) == user .. ' ' then erase({ string.sub(member, #user + 2) }) end
end
redis.call('DEL', queue_key(user), failed_key(user), lock_key(user), pace_key(user), collect_key(user), session_key(user))
redis.call('DEL', on_lane_key(queue_name(user)))
ours('ZREM', LANES, user)
ours('SREM', QUEUES, listed(user))
return 0
