#pragma once

// Keeps what is built on a new system within manylinux_2_28 (glibc 2.28, GLIBCXX_3.4.24), as the
// toolchain of manylinux does by itself. setup.py includes this first in every C++ file. If
// tools/check_wheel names another symbol, add it here.

#include <features.h>

#include <new>

// Functions that moved into libc.so.6 with glibc 2.34, under the versions that they had before,
// which every later glibc has too.
#if __GLIBC_PREREQ(2, 34)
#if defined(__x86_64__)
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
__asm__(".symver dlclose, dlclose@GLIBC_2.2.5");
__asm__(".symver dlerror, dlerror@GLIBC_2.2.5");
__asm__(".symver pthread_condattr_setclock, pthread_condattr_setclock@GLIBC_2.3.3");
#elif defined(__aarch64__)
__asm__(".symver dlopen, dlopen@GLIBC_2.17");
__asm__(".symver dlsym, dlsym@GLIBC_2.17");
__asm__(".symver dlclose, dlclose@GLIBC_2.17");
__asm__(".symver dlerror, dlerror@GLIBC_2.17");
__asm__(".symver pthread_condattr_setclock, pthread_condattr_setclock@GLIBC_2.17");
#endif
#endif

// Functions whose versions of glibc 2.29 differ from those before in how they set errno alone.
#if __GLIBC_PREREQ(2, 29)
#if defined(__x86_64__)
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
__asm__(".symver pow, pow@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver exp, exp@GLIBC_2.17");
__asm__(".symver log, log@GLIBC_2.17");
__asm__(".symver pow, pow@GLIBC_2.17");
#endif
#endif

// What std::vector of gcc 11 and later calls is GLIBCXX_3.4.29. Same definition as the library's.
#if defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE >= 11
namespace std {
[[noreturn]] __attribute__((weak)) void __throw_bad_array_new_length() {
  throw std::bad_array_new_length();
}
}  // namespace std
#endif

// What std::shared_ptr of gcc 11 and later asks before it counts is GLIBC_2.32. There may always be
// other threads.
#if __GLIBC_PREREQ(2, 32)
extern "C" {
__attribute__((weak)) char __libc_single_threaded = 0;
}
#endif
