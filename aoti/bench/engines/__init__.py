"""Engines that models are compared on: which there are, and one file for each.

May import: process, exporting.capture, engine and errors; aoti itself for a load.
"""
