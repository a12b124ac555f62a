"""The verbs of ``aoti``: one file for each, all of them thin.

May import: io, the files of cli itself, and what they show.
"""
