# One file per C++ header of csrc/aoti: extern declarations and nothing else.
