-- Notes how far a lap over all waiting users has come. A full Redis refuses the mark of its end: until there is room one
-- lap follows the other, since somebody may have been left out meanwhile.
-- ARGV: the user after whom it goes on, or '' at its end; s until the next
local after, seconds = ARGV[1], ARGV[2]
if after == '' then
  unless_full('SET', RECONCILED, '1', 'EX', seconds)
  redis.call('DEL', RECONCILE_CURSOR)
else
  even_when_full()
  redis.call('SET', RECONCILE_CURSOR, after)
end
