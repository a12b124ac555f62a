"""Does this package fit this machine: each question about it, answered by findings.

May import: cache, package, signature, machine and errors; of engine, how a library is opened.
"""
