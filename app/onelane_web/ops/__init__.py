"""The operator's pages under /ops, and who may open them."""
