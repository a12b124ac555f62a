"""What commands read and write: arrays as JSON and in files, streams of requests and results.

May import: arrays, signature and errors.
"""
