"""A worker process: its slots, its registration with RQ, its share of the duties, what restarts it, what it counts."""
