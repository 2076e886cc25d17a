-- Pauses a lane until due.lua runs with `unpause`. The pause itself is in Postgres; a lane without work needs no score,
-- since begin_turn refuses it when work comes.
-- ARGV: user
-- Returns 1 when the lane had work or a holder.
local user = ARGV[1]
if not ours('ZSCORE', LANES, user) then return 0 end
even_when_full()
redis.call('ZADD', LANES, 'XX', '+inf', user)
return 1
