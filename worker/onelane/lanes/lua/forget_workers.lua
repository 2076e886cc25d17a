-- Removes the names of dead workers from those that RQ lists: their hashes have run out.
-- ARGV: the cursor that the last call returned, or 0; about how many names to look at
-- Returns the next cursor, 0 after the last name.
local page = ours('SSCAN', WORKERS, ARGV[1], 'COUNT', ARGV[2])
for _, key in ipairs(page[2]) do
  if redis.call('EXISTS', listed_worker_key(key)) == 0 then redis.call('SREM', WORKERS, key) end
end
return page[1]
