"""From a webhook's bytes to a numbered line on its lane: receive, take in, or keep in quarantine."""
