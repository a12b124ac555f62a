"""A written package is compared with the module, and timed.

May import: capture, describe and what runs models.
"""
