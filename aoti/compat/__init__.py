"""Checks whether a package fits this machine. Every check returns findings.

May import: engine, cache, package, signature, machine and errors.
"""
