"""A module and its examples become an exported program.

May import: describe and the files of exporting itself, signature, errors.
"""
