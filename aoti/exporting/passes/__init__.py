"""Rewrites of a program's graph before it is compiled.

May import: build, error_messages and errors.
"""
