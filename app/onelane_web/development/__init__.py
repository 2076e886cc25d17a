"""What only a developer's service shows."""
