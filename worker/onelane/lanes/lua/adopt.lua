-- Makes the lanes those of our database, whoever's they were. What is in them is left: workers take off what Postgres
-- does not know. The reconciler begins at once with the first user of this kind.
-- ARGV: the database's id
even_when_full()
redis.call('HSET', INSTANCE, 'id', ARGV[1])
redis.call('DEL', RECONCILED, RECONCILE_CURSOR)
