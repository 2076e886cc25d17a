"""The error that ends a benchmark."""


class BenchError(Exception):
    """A run did not do its work, so its number would mean nothing."""
