"""An exported program becomes the signature that its package records.

May import: capture, signature and errors.
"""
