"""The library of the native engine, ``libaoti_cpu.so``: csrc/aoti/native. No Python in it.

May import: nothing of aoti. aoti.engine.native loads it.
"""
