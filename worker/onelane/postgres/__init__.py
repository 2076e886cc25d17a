"""Postgres: its connections, its calls, its migrations, and whose fault an error is."""
