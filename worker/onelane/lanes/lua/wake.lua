-- Passes a wake-up on that its taker cannot use, being told to stop in the meantime.
even_when_full()
wake_one()
