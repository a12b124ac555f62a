"""A model's weights: given from outside, replaced while it runs, read back.

May import: arrays, engine, compat, cache, package, signature and errors.
"""
