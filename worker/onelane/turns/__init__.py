"""The life of a message from lease to release: begin, handle, commit, finish."""
