"""Packages as files on this disk: shared and bounded, private to a process, or unpacked by hand.

May import: package, signature and errors.
"""
