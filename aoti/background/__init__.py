"""Calls in the background: a bounded queue and its worker threads, and waiting in event loops.

May import: protocol and all that is below it.
"""
