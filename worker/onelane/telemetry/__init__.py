"""What the service says about itself: log events and numbers. No text, sender or address of a user is in either."""
