-- Adds a batch of counted numbers to those of all processes, once, however often it is sent.
-- HLEN first: a key of another type is removed before anything is added. A field that is not a number loses its
-- amount; the other fields are added all the same, once.
-- ARGV: the process, the batch's number, ms to remember it, then field, amount, …
-- Returns 1, or 0 when the batch had been added before.
local SHOWN = { 'onelane_accepted:message', 'onelane_replies:', 'onelane_end_to_end_seconds:' }
local MINUTES_MAX = 61

local function is_shown(field)
  for _, start in ipairs(SHOWN) do
    if string.sub(field, 1, #start) == start then return true end
  end
  return false
end

-- At the first count of a minute: keeps what the numbers of a trend were until then.
local function keep_minute()
  local minute = digits(math.floor(redis_clock('') / 60000))
  if string.match(ours('LRANGE', MINUTES, 0, 0)[1] or '', '^%d+') == minute then return end
  local numbers, kept = redis.call('HGETALL', NUMBERS), {}
  for i = 1, #numbers, 2 do
    if is_shown(numbers[i]) and whole(numbers[i + 1]) then kept[numbers[i]] = tonumber(numbers[i + 1]) end
  end
  redis.call('LPUSH', MINUTES, minute .. ' ' .. (next(kept) and cjson.encode(kept) or '{}'))
  redis.call('LTRIM', MINUTES, 0, MINUTES_MAX - 1)
end

local process_key, batch, ttl = counted_key(ARGV[1]), ARGV[2], ARGV[3]
ours('HLEN', NUMBERS)
if ours('GET', process_key) == batch then return 0 end
even_when_full()
redis.call('SET', process_key, batch, 'PX', ttl)
keep_minute()
for i = 4, #ARGV, 2 do redis.pcall('HINCRBY', NUMBERS, ARGV[i], ARGV[i + 1]) end
return 1
