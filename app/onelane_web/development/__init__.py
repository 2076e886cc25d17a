"""What is served in development only."""
