"""The verbs of ``aoti``: one file for each, all of them thin.

May import: io and the files of cli beside it, and whatever they show.
"""
