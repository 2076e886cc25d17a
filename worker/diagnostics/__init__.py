"""What an operator, a page or a metric may ask: how the lanes stand, what a user's story is, whether all is well.

Everything here reads; the exceptions are the doctor's scratch user and scratch schema, which it takes away again.
"""
