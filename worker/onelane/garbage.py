"""What a process has loaded stays for its life: the garbage collector need not look through it again and again."""

import gc


def keep_what_is_loaded() -> None:
    """Take all that there is now out of the collector's sight. Otherwise every full round halts all threads."""
    gc.collect()
    gc.freeze()
