"""The libtorch engine's Cython module, compiled once for each torch minor version and backend.

May import: nothing of aoti. aoti.engine.libtorch chooses the build that fits, and loads it.
"""
