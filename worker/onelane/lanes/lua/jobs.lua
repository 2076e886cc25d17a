-- Lists the ids of the jobs on a lane, oldest first.
-- ARGV: user
return ours('LRANGE', queue_key(ARGV[1]), 0, -1)
