"""A written package is compared with the module, and timed.

May import: capture, describe, golden, signature and errors; aoti itself for a load.
"""
