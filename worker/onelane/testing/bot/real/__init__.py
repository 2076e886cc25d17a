"""The same service as in production, on embedded servers and with a worker in this process."""
