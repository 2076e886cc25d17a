-- Forgets the id of a user's session: it has ended.
-- ARGV: user
redis.call('DEL', session_key(ARGV[1]))
