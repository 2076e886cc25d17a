-- Gives a duty to a worker for one round, unless another has it. A claim that never ends, or ends later than ours do,
-- was not made here, and no round would begin again.
-- ARGV: duty, worker, ms that a round lasts
-- Returns how many dead messages Redis keeps, or nothing while a worker has the duty.
local key, worker, lasts = duty_key(ARGV[1]), ARGV[2], ARGV[3]
local left = redis.call('PTTL', key)
if left >= 0 and left <= tonumber(lasts) then return nil end
redis.call('DEL', key) -- first, so that a full Redis allows what follows
redis.call('SET', key, worker, 'PX', lasts)
return ours('ZCARD', BURIED)
