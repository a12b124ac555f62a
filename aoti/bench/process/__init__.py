"""What runs in the process of one engine, and what starts that process.

May import: the files of bench itself, signature and errors.
"""
