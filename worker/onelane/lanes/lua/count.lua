-- Adds a batch of counted numbers to those of all processes, once, however often it is sent.
-- HLEN first: a key of another type is removed before anything is added. A field that is not a number loses its
-- amount; the other fields are added all the same, once.
-- ARGV: the process, the batch's number, ms to remember it, then field, amount, …
-- Returns 1, or 0 when the batch had been added before.
local process_key, batch, ttl = counted_key(ARGV[1]), ARGV[2], ARGV[3]
ours('HLEN', NUMBERS)
if ours('GET', process_key) == batch then return 0 end
even_when_full()
redis.call('SET', process_key, batch, 'PX', ttl)
for i = 4, #ARGV, 2 do redis.pcall('HINCRBY', NUMBERS, ARGV[i], ARGV[i + 1]) end
return 1
