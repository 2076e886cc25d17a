-- Finds dead messages that RQ's own tools have requeued. RQ puts them at an end of the list; of a long list only the ends
-- are searched, so that the work for each user is bounded.
-- ARGV: users that had a dead message
-- Returns the ids of buried jobs that are on a lane, as user, id, user, id, …
local END = 500
local found = {}
local function search(user, first, last)
  local before = #found
  for _, id in ipairs(ours('LRANGE', queue_key(user), first, last)) do
    if is_buried(id) then
      found[#found + 1], found[#found + 2] = user, id
    end
  end
  return #found > before
end

for _, user in ipairs(ARGV) do
  local jobs = ours('LLEN', queue_key(user))
  local any = search(user, 0, END - 1)
  if jobs > END then any = search(user, math.max(END, jobs - END), -1) or any end
  if not any and jobs <= 2 * END and redis.call('EXISTS', failed_key(user)) == 0 then
    forget_empty_queue(user)
  end
end
return found
