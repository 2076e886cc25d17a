-- Notes how far a lap over all waiting users has come. A full Redis refuses the mark of its end: until there is room one
-- lap follows the other, since somebody may have been left out meanwhile.
-- ARGV: the user after whom it goes on, or '' at its end; s until the next;
--       to move it only from there: the user after whom it went on so far, and who moves it
-- Returns 1, or 0 when it is elsewhere.
local after, seconds, before, worker = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if before then
  local cursor = peek('GET', RECONCILE_CURSOR) or ''
  after = after .. ' ' .. worker
  if cursor == after then return 1 end
  local user = string.sub(cursor, 1, #before)
  if not is_user(user) then user = '00000000-0000-0000-0000-000000000000' end
  if user ~= before then return 0 end
end
if after == '' then
  unless_full('SET', RECONCILED, '1', 'EX', seconds)
  redis.call('DEL', RECONCILE_CURSOR)
else
  even_when_full()
  redis.call('SET', RECONCILE_CURSOR, after)
end
return 1
