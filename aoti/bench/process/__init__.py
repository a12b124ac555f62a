"""What runs in the process of one engine, and what starts that process.

May import: engines, for their types, and errors.
"""
