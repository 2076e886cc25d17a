-- When an operator said that a dead message may be forgotten. It stays dead, and is listed no more.
ALTER TABLE messages ADD COLUMN dropped_at timestamptz;
