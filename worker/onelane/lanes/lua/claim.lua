-- Gives a duty to a worker for one round, unless another has it. A claim that never ends, or ends later than ours do,
-- was not made here, and no round would begin again.
-- ARGV: duty, worker, ms that a round lasts
-- Returns 1 or 0 while a worker has the duty, how many dead Redis keeps of all kinds (0 in the second case), and for how
-- many s each kind's mark of the last lap stays.
local key, worker, lasts = duty_key(ARGV[1]), ARGV[2], ARGV[3]
local answer = { 1, 0 }
for _, kind in ipairs(KINDS) do answer[#answer + 1] = redis.call('TTL', reconciled_key(kind)) end
local left = redis.call('PTTL', key)
if left >= 0 and left <= tonumber(lasts) then
  answer[1] = 0
  return answer
end
redis.call('DEL', key) -- first, so that a full Redis allows what follows
redis.call('SET', key, worker, 'PX', lasts)
for _, kind in ipairs(KINDS) do answer[2] = answer[2] + ours('ZCARD', buried_key(kind)) end
return answer
