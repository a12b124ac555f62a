"""What runs the code of a package: the array core and the libtorch engine, found and loaded.

May import: signature, machine and errors. It does not know packages or arrays: it is given data.
"""
