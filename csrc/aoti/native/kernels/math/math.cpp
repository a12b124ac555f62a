#include <aoti/native/kernels/math/math.h>

#include <aoti/native/kernels/isa.h>

#include <algorithm>
#include <cmath>

namespace aoti::native {

namespace {

using OverArray = void (*)(const float* x, float* y, int64_t n) noexcept;

[[maybe_unused]] OverArray choose(OverArray generic, OverArray avx2, OverArray avx512) noexcept {
  const Isa best = isa();
  return best == Isa::kAvx512 ? avx512 : best == Isa::kAvx2 ? avx2 : generic;
}

}  // namespace

#define AOTI_MATH_GENERIC(name)                                                    \
  static void name##_array_generic(const float* x, float* y, int64_t n) noexcept { \
    std::transform(x, x + n, y, [](float value) { return std::name(value); });     \
  }
AOTI_MATH_ARRAYS(AOTI_MATH_GENERIC)

#if defined(__x86_64__)
#define AOTI_MATH_ARRAY(name)                                                 \
  void name##_array(const float* x, float* y, int64_t n) noexcept {           \
    static const OverArray chosen =                                           \
        choose(name##_array_generic, name##_array_avx2, name##_array_avx512); \
    chosen(x, y, n);                                                          \
  }
#else
#define AOTI_MATH_ARRAY(name) \
  void name##_array(const float* x, float* y, int64_t n) noexcept { name##_array_generic(x, y, n); }
#endif
AOTI_MATH_ARRAYS(AOTI_MATH_ARRAY)

}  // namespace aoti::native
