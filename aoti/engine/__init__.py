"""What runs the code of a package: the array core, the libtorch engine, and what finds and loads it.

May import: signature, machine and errors. It does not know packages or arrays: it is given data.
"""
