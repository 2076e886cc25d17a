-- Lists for a worker what has come for users whose turns it runs, once.
-- ARGV: worker
-- Returns user, the newest message's number, user, number, …
local key = newer_key(ARGV[1])
local newer = ours('HGETALL', key)
if #newer > 0 then redis.call('DEL', key) end
return newer
