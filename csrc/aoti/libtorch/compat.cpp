// Keeps the engine within manylinux_2_28, as core/compat.h does.

#include <sstream>

// c10's inline functions write their messages with these. gcc 9 and later expect them in the C++
// library as GLIBCXX_3.4.26 and 3.4.29; defined here, they are found here.
#if defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE >= 9
template class std::basic_stringbuf<char>;
template class std::basic_ostringstream<char>;
#endif
