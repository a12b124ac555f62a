"""An exported program becomes the signature that its package records.

May import: the files of exporting itself, signature, errors.
"""
