"""How many descriptors this process may open: each client takes one."""

import resource
from contextlib import suppress


def allow_files(wanted: int) -> int:
    """Raise the limit on open descriptors as far as it may be raised, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(wanted, max(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
