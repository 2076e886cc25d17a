"""The protocol, whole: every interleaving of two workers, their crashes and their leases, looked at one by one.

`lanes` transcribes the scripts in Redis, `records` the functions in Postgres, `workers` and `sends` what a worker does
with their answers, `world` all that happens beside. `rules` are the promises, `search` looks everywhere, `bugs` shows
that it sees. `beside` walks at random through the same steps on a real Redis and a real Postgres, and compares.
"""
