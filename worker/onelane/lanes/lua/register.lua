-- Notes that a worker lives, by the lanes' clock, Redis' own: its machine's may be minutes behind. Who has not been heard for long is
-- forgotten. Then writes what RQ's tools show of it: of its lanes only what has changed.
-- ARGV: now, worker, ms after which a silent worker is forgotten, JSON {fields: [field, value, …] of RQ's hash and
--       kept_s: for how long, left: [queue, …], joined: [queue, …] to be shown with this worker alone, lane_s: for how
--       long}, or '' for no news
-- Returns whether `rq suspend` is on, and whether RQ knows the worker; if not, only the first was done.
local now, worker, kept = lanes_clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local key = worker_key(worker)
even_when_full()
ours('ZADD', HEARTBEATS, digits(now), worker)
redis.call('ZREMRANGEBYSCORE', HEARTBEATS, '-inf', digits(now - kept))
local is_suspended, is_known = redis.call('EXISTS', SUSPENDED), ours('HLEN', key) > 0

local function show(news)
  redis.call('HSET', key, unpack(news.fields))
  redis.call('EXPIRE', key, news.kept_s)
  for _, queue in ipairs(news.left) do ours('SREM', on_lane_key(queue), listed_worker(worker)) end
  for _, queue in ipairs(news.joined) do
    redis.call('DEL', on_lane_key(queue)) -- a dead worker's name, too: a lane has one holder
    redis.call('SADD', on_lane_key(queue), listed_worker(worker))
    redis.call('EXPIRE', on_lane_key(queue), news.lane_s)
  end
end

if is_known and ARGV[4] ~= '' then show(cjson.decode(ARGV[4])) end
return { is_suspended, is_known and 1 or 0 }
