"""What was measured: as numbers, tables, a page, a plot.

May import: process, engines, settings, environment, golden and errors.
"""
