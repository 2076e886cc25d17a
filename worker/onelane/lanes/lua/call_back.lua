-- Makes lanes due whose time is further ahead than anything we set: somebody wrote it by hand, or by another clock.
-- ARGV: now, the most ms that a lane is set ahead, the most lanes to make due
-- Returns how many lanes were made due.
local now, ahead, most = lanes_clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local lanes = ours('ZRANGE', LANES, '(' .. digits(now + ahead), '(+inf', 'BYSCORE', 'LIMIT', 0, most)
if #lanes > 0 then even_when_full() end
for _, user in ipairs(lanes) do
  redis.call('ZADD', LANES, digits(now), user)
  wake_one()
end
wake_workers()
return #lanes
