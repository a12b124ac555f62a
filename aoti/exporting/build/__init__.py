"""A program becomes a package: presets, compiling, packing.

May import: the files of exporting itself, signature, errors.
"""
