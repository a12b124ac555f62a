"""The .pt2 file: everything that reads a package and runs nothing of it.

May import: signature and errors.
"""
