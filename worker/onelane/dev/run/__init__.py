"""The whole service on one machine: what `onelane run` starts, and how it ends."""
