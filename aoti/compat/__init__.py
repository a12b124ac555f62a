"""Does this package fit this machine: each question about it, answered by findings.

May import: engine, cache, package, signature, machine and errors.
"""
