"""What a model takes and gives: sizes, tensors, the structure of a call, and inputs made from them.

May import: errors.
"""
