"""A module and its examples become an exported program.

May import: describe, error_messages, signature and errors.
"""
