-- Lists the users whose lanes are due, the longest first, and counts the workers for them that were heard just now. Reads only.
-- ARGV: now, the most to list
-- Returns { workers, users }.
local HEARD_MS, COUNTED_MAX = 10000, 100
local now, workers = lanes_clock(ARGV[1]), 0
local heard = peek('ZRANGE', HEARTBEATS, digits(now - HEARD_MS), '+inf', 'BYSCORE', 'LIMIT', 0, COUNTED_MAX) or {}
for _, name in ipairs(heard) do
  local worker = peek('HMGET', worker_key(name), 'slots', 'death') or {}
  if worker[1] and not worker[2] and string.find(worker[1], '"' .. KIND .. '"', 1, true) then workers = workers + 1 end
end
return { workers, peek('ZRANGE', LANES, '-inf', digits(now), 'BYSCORE', 'LIMIT', 0, ARGV[2]) or {} }
