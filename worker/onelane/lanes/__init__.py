"""Who has work, who is on it, and how a lease stays alive: all that is done in Redis for a message."""
