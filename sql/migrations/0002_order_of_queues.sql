-- What waits is gone soon. ANALYZE finds in these tables hardly a row at most times, and keeps what it knew of their order
-- by user before: a planner that knows both sorts all that waits, for each row that an index would give it at once. It
-- shall know nothing of that order.

ALTER TABLE inbox ALTER COLUMN user_id SET STATISTICS 0;
ALTER TABLE outbox ALTER COLUMN user_id SET STATISTICS 0;
