"""`onelane doctor`: whether all is well, check by check.

Everything here reads; the exceptions are a scratch user and a scratch schema, which it takes away again.
"""
