"""What was measured: as numbers, tables, a page, a picture.

May import: process, engines and the files of bench itself, and golden.
"""
