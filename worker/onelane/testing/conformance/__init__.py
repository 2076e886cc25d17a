"""Webhooks of each provider as data, and a runner that sends them to any WSGI application: see docs/CONFORMANCE.md."""
