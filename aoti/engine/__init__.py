"""What runs a model's code: libtorch, found and loaded, and the core that fits it.

May import: machine and errors. It is given data, and knows no package, signature or array.
"""
