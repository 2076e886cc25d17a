-- Wakes another worker: the one that took the token is stopping, and cannot use it.
even_when_full()
wake_one()
wake_workers()
