"""Models behind servers that speak a standard protocol. The files need those servers' packages.

May import: loading and all that is below it.
"""
