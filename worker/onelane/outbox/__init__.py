"""What becomes of replies: a lane of each user takes them to the provider, in order, and finds out what happened."""
