"""Rewrites of a program's graph before it is compiled.

May import: build and the files of exporting itself, signature, errors.
"""
