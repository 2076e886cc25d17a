-- Removes a job from a lane, because Postgres has no waiting message for it. The job's hash is deleted too, if it is
-- this lane's: somebody may have put another lane's job here.
-- ARGV: user, message id
local user, id = ARGV[1], ARGV[2]
ours('LREM', queue_key(user), 0, id)
if redis.pcall('HGET', job_key(id), 'origin') == queue_name(user) then
  redis.call('DEL', job_key(id), results_key(id))
  unbury(user, id)
end
forget_empty_queue(user)
