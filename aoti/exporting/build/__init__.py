"""A program becomes a package: presets, compiling, packing.

May import: passes, error_messages, package, signature and errors.
"""
