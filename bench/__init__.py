"""Benchmarks: one file a claim in `claims/`, with peers beside ours in the same run. See docs/BENCHMARKS.md."""
