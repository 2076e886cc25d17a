"""`onelane doctor`: the checks of a deployment.

The checks read. Two of them write a scratch user or a scratch schema, and remove it again.
"""
