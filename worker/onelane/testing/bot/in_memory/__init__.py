"""A service in memory that keeps the promises of the real one, as far as one bot on one channel can see."""
