"""Engines that models are compared on: which there are, and one file for each.

May import: process and the files of bench itself, exporting, and everything below the wings.
"""
