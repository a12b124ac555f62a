"""The command line: the wing that people type at.

May import: bench, exporting, and everything below the wings.
"""
