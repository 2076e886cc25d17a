"""The whole service on one machine, for trying and developing: what `lanekeeper run` starts, and how it ends."""
