// The functions that stand in for SLEEF's, against the C library: those of float against its
// double, those of double against its long double.

#include <aoti/native/kernels/isa.h>
#include <aoti/native/kernels/math/functions.h>
#include <aoti/native/kernels/math/math.h>

#include <math.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "../cpp/expect.h"

namespace {

using aoti::native::Isa;
using aoti::native::isa;

template <class T>
using Wider = std::conditional_t<std::is_same_v<T, float>, double, long double>;

// How far `got` is from what it should be, in units in the last place of T; 0 if it is the nearest.
template <class T>
double error_of(T got, Wider<T> wanted) {
  using Limits = std::numeric_limits<T>;
  const T rounded = static_cast<T>(wanted);
  if (got == rounded && (got != 0 || std::signbit(got) == std::signbit(rounded))) {
    return 0.0;
  }
  if (std::isnan(wanted)) {
    return std::isnan(got) ? 0.0 : INFINITY;
  }
  const bool signs_differ = std::signbit(got) != std::signbit(wanted);
  if (std::isnan(got) || signs_differ || wanted == 0 || std::isinf(wanted)) {
    return INFINITY;
  }
  const Wider<T> value =
      std::isinf(got) ? std::copysign(std::ldexp(Wider<T>(1), Limits::max_exponent), wanted) : got;
  const int exponent = std::max(std::ilogb(wanted), Limits::min_exponent - 1);
  const Wider<T> unit = std::ldexp(Wider<T>(1), exponent - Limits::digits + 1);
  return static_cast<double>(std::fabs(value - wanted) / unit);
}

// Where functions change: in what they are or in how they are computed.
constexpr double kHalfPi = 1.5707963267948966;
constexpr double kSpecial[] = {
    0.0,       0.1,    0.25,      0.5,       0.6931472,   0.70710678, 1.0,          1.5,
    kHalfPi,   2.0,    2.5,       3.0,       2 * kHalfPi, 4.0,        9.01,         10.0,
    10.05,     17.0,   26.5,      28.0,      35.04,       36.0,       88.72283,     88.72284,
    89.415985, 89.42,  103.2789,  103.97208, 104.5,       127.0,      128.0,        149.0,
    150.0,     151.0,  709.78,    709.79,    710.47,      745.13,     745.14,       1024.0,
    1074.0,    1076.0, 8388607.5, 8388608.0, 16777215.0,  16777216.0, 1073741760.0, 1073741824.0,
    1e15,      1e30};

template <class T>
std::vector<T> special_values() {
  using Limits = std::numeric_limits<T>;
  std::vector<T> values(std::begin(kSpecial), std::end(kSpecial));
  const T smallest = Limits::denorm_min();
  const T one_less = std::nextafter(T(1), T(0));
  values.insert(values.end(), {smallest, 3 * smallest, Limits::min() / 2, Limits::min(), one_less});
  values.insert(values.end(), {Limits::epsilon() / 2, Limits::epsilon(), 1 + Limits::epsilon()});
  values.insert(values.end(), {Limits::max() / 2, Limits::max(), T(INFINITY), T(NAN)});
  const size_t count = values.size();
  for (size_t i = 0; i < count; ++i) {
    values.push_back(-values[i]);
  }
  return values;
}

// Numbers all over the range: the bit patterns that a stride meets. After each four is one of a
// magnitude from 2^-12 to 2^12.
template <class T>
std::vector<T> numbers(size_t count) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const Bits stride = (~Bits{0} / static_cast<Bits>(count)) | 1;
  const Bits bias = std::numeric_limits<T>::max_exponent - 1;
  const int digits = std::numeric_limits<T>::digits - 1;
  const Bits exponent = (2 * bias + 1) << digits;
  std::vector<T> result(count / 4 * 5);
  Bits bits = 12345;
  for (size_t i = 0; i < result.size(); ++i) {
    const bool moderate = i % 5 == 4;
    const Bits other = (bits & ~exponent) | ((bias - 12 + i % 24) << digits);
    result[i] = std::bit_cast<T>(moderate ? other : bits);
    bits += moderate ? 0 : stride;
  }
  return result;
}

template <class T>
struct Inputs {
  std::vector<T> x;
  std::vector<T> y;  // zeros, for functions of one number
};

// Each special value once in each lane, and numbers.
template <class T>
Inputs<T> inputs_of_one(size_t count) {
  const std::vector<T> special = special_values<T>();
  Inputs<T> inputs{numbers<T>(count), {}};
  for (size_t lane = 0; lane < 16; ++lane) {
    for (size_t i = 0; i < (special.size() + 15) / 16 * 16; ++i) {
      inputs.x.push_back(special[(i + lane) % special.size()]);
    }
  }
  inputs.y.resize(inputs.x.size());
  return inputs;
}

// All pairs of special values, and of numbers, of which some are alike in their magnitude.
template <class T>
Inputs<T> inputs_of_two(size_t count) {
  Inputs<T> inputs{numbers<T>(count), {}};
  inputs.y.resize(inputs.x.size());
  for (size_t i = 0; i < inputs.y.size(); ++i) {
    inputs.y[i] = inputs.x[(i * 7921 + i % 3) % inputs.x.size()];
  }
  const std::vector<T> special = special_values<T>();
  for (const T x : special) {
    for (const T y : special) {
      inputs.x.push_back(x);
      inputs.y.push_back(y);
    }
  }
  return inputs;
}

// A function of vectors, as one of pointers to as many lanes as a vector has. One that is null is
// of an ISA that this CPU lacks.
template <class T>
struct Vectors {
  Isa isa;
  int lanes;
  void (*of_one)(const T* x, T* y);
  void (*of_two)(const T* x, const T* y, T* z);
};

template <class T>
struct Case {
  const char* name;
  double bound;
  Wider<T> (*of_one)(Wider<T>);
  Wider<T> (*of_two)(T, T);
  Vectors<T> vectors[2];
};

struct Worst {
  double error = 0;
  std::string where;
};

template <class T>
void check(const Case<T>& test, const Inputs<T>& inputs) {
  const std::vector<T>& x = inputs.x;
  const std::vector<T>& y = inputs.y;
  std::vector<Wider<T>> wanted(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    wanted[i] = test.of_one != nullptr ? test.of_one(x[i]) : test.of_two(x[i], y[i]);
  }
  for (const Vectors<T>& vectors : test.vectors) {
    if (isa() < vectors.isa) {
      continue;
    }
    Worst worst;
    const auto lanes = static_cast<size_t>(vectors.lanes);
    for (size_t first = 0; first + lanes <= x.size(); first += lanes) {
      T got[16];
      if (test.of_one != nullptr) {
        vectors.of_one(&x[first], got);
      } else {
        vectors.of_two(&x[first], &y[first], got);
      }
      for (size_t i = 0; i < lanes; ++i) {
        const double error = error_of<T>(got[i], wanted[first + i]);
        if (error > worst.error) {
          char text[200];
          std::snprintf(
              text,
              sizeof text,
              "lane %d: of %a, %a: %a, expected %La",
              static_cast<int>(i),
              static_cast<double>(x[first + i]),
              static_cast<double>(y[first + i]),
              static_cast<double>(got[i]),
              static_cast<long double>(wanted[first + i]));
          worst = {error, text};
        }
      }
    }
    const std::string name = std::string(test.name) + " of " + std::to_string(lanes) + " lanes";
    std::printf("%s: %.4f\n", name.c_str(), worst.error);
    if (worst.error > test.bound) {
      expect::fail(
          __FILE__, __LINE__, name + ": " + std::to_string(worst.error) + ", " + worst.where);
    }
  }
}

}  // namespace

#if defined(__x86_64__)

#include <immintrin.h>

#define UNARY(function, V, T)                   \
  extern "C" V aotis_##function(V x);           \
  static void of_##function(const T* x, T* y) { \
    V lanes;                                    \
    std::memcpy(&lanes, x, sizeof lanes);       \
    lanes = aotis_##function(lanes);            \
    std::memcpy(y, &lanes, sizeof lanes);       \
  }
#define BINARY(function, V, T)                              \
  extern "C" V aotis_##function(V x, V y);                  \
  static void of_##function(const T* x, const T* y, T* z) { \
    V lanes;                                                \
    V others;                                               \
    std::memcpy(&lanes, x, sizeof lanes);                   \
    std::memcpy(&others, y, sizeof others);                 \
    lanes = aotis_##function(lanes, others);                \
    std::memcpy(z, &lanes, sizeof lanes);                   \
  }
#define SINCOS(letters, V, T)                                    \
  struct Two##letters {                                          \
    V sine;                                                      \
    V cosine;                                                    \
  };                                                             \
  extern "C" Two##letters aotis_sincos##letters##_u10(V x);      \
  static void sine_of_##letters(const T* x, T* y) {              \
    V lanes;                                                     \
    std::memcpy(&lanes, x, sizeof lanes);                        \
    const Two##letters two = aotis_sincos##letters##_u10(lanes); \
    std::memcpy(y, &two.sine, sizeof lanes);                     \
  }                                                              \
  static void cosine_of_##letters(const T* x, T* y) {            \
    V lanes;                                                     \
    std::memcpy(&lanes, x, sizeof lanes);                        \
    const Two##letters two = aotis_sincos##letters##_u10(lanes); \
    std::memcpy(y, &two.cosine, sizeof lanes);                   \
  }

#define UNARY_F8(name, suffix) UNARY(name##f8##suffix, __m256, float)
#define UNARY_D4(name, suffix) UNARY(name##d4##suffix, __m256d, double)
#define UNARY_F16(name, suffix) UNARY(name##f16##suffix, __m512, float)
#define UNARY_D8(name, suffix) UNARY(name##d8##suffix, __m512d, double)
#define BINARY_F8(name, suffix) BINARY(name##f8##suffix, __m256, float)
#define BINARY_D4(name, suffix) BINARY(name##d4##suffix, __m256d, double)
#define BINARY_F16(name, suffix) BINARY(name##f16##suffix, __m512, float)
#define BINARY_D8(name, suffix) BINARY(name##d8##suffix, __m512d, double)

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
AOTI_MATH_UNARY(UNARY_F8)
AOTI_MATH_UNARY(UNARY_D4)
AOTI_MATH_UNARY_FLOAT(UNARY_F8)
AOTI_MATH_BINARY(BINARY_F8)
AOTI_MATH_BINARY(BINARY_D4)
SINCOS(f8, __m256, float)
SINCOS(d4, __m256d, double)
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
AOTI_MATH_UNARY(UNARY_F16)
AOTI_MATH_UNARY(UNARY_D8)
AOTI_MATH_UNARY_FLOAT(UNARY_F16)
AOTI_MATH_BINARY(BINARY_F16)
AOTI_MATH_BINARY(BINARY_D8)
SINCOS(f16, __m512, float)
SINCOS(d8, __m512d, double)
#pragma GCC pop_options

// What the C library says: of one number, in the wider type; of two, that, too, or exactly.
namespace reference {

using namespace std;

static double lgamma(double x) {
  int sign;
  return lgamma_r(x, &sign);
}

static long double lgamma(long double x) {
  int sign;
  return lgammal_r(x, &sign);
}

#define WIDER(name)                             \
  template <class T>                            \
  Wider<T> name(T x, T y) {                     \
    return std::name(Wider<T>(x), Wider<T>(y)); \
  }
#define EXACT(name)         \
  template <class T>        \
  Wider<T> name(T x, T y) { \
    return std::name(x, y); \
  }
WIDER(atan2)
WIDER(hypot)
WIDER(pow)
EXACT(copysign)
EXACT(fmod)
EXACT(nextafter)

}  // namespace reference

namespace {

// u10 is 1.0. What has no suffix is exact.
double bound_of(const std::string& suffix) {
  return suffix.empty() ? 0.0 : suffix == "_u05" ? 0.501 : std::stod(suffix.substr(2)) / 10;
}

#define CASE_OF_ONE(name, suffix, T, narrow, wide)            \
  {#name #suffix,                                             \
   bound_of(#suffix),                                         \
   [](Wider<T> x) -> Wider<T> { return reference::name(x); }, \
   nullptr,                                                   \
   {{Isa::kAvx2, 32 / sizeof(T), narrow, nullptr},            \
    {Isa::kAvx512, 64 / sizeof(T), wide, nullptr}}},
#define CASE_OF_TWO(name, suffix, T, narrow, wide)                \
  {#name #suffix,                                                 \
   bound_of(#suffix),                                             \
   nullptr,                                                       \
   [](T x, T y) -> Wider<T> { return reference::name<T>(x, y); }, \
   {{Isa::kAvx2, 32 / sizeof(T), nullptr, narrow},                \
    {Isa::kAvx512, 64 / sizeof(T), nullptr, wide}}},
#define FLOAT_OF_ONE(name, suffix) \
  CASE_OF_ONE(name, suffix, float, of_##name##f8##suffix, of_##name##f16##suffix)
#define FLOAT_OF_TWO(name, suffix) \
  CASE_OF_TWO(name, suffix, float, of_##name##f8##suffix, of_##name##f16##suffix)
#define DOUBLE_OF_ONE(name, suffix) \
  CASE_OF_ONE(name, suffix, double, of_##name##d4##suffix, of_##name##d8##suffix)
#define DOUBLE_OF_TWO(name, suffix) \
  CASE_OF_TWO(name, suffix, double, of_##name##d4##suffix, of_##name##d8##suffix)

template <class T>
void check_all(const std::vector<Case<T>>& cases, const Inputs<T>& inputs) {
  for (const Isa wanted : {Isa::kAvx2, Isa::kAvx512}) {
    if (isa() < wanted) {
      std::fprintf(stderr, "skipped: %s, with %s\n", name_of(wanted), name_of(isa()));
    }
  }
  for (const Case<T>& test : cases) {
    check(test, inputs);
  }
}

}  // namespace

TEST(functions_of_a_float) {
  check_all<float>(
      {AOTI_MATH_UNARY(FLOAT_OF_ONE) AOTI_MATH_UNARY_FLOAT(FLOAT_OF_ONE)
           CASE_OF_ONE(sin, _u10, float, sine_of_f8, sine_of_f16)
               CASE_OF_ONE(cos, _u10, float, cosine_of_f8, cosine_of_f16)},
      inputs_of_one<float>(2000000));
}

TEST(functions_of_two_floats) {
  check_all<float>({AOTI_MATH_BINARY(FLOAT_OF_TWO)}, inputs_of_two<float>(2000000));
}

TEST(functions_of_a_double) {
  check_all<double>(
      {AOTI_MATH_UNARY(DOUBLE_OF_ONE) CASE_OF_ONE(sin, _u10, double, sine_of_d4, sine_of_d8)
           CASE_OF_ONE(cos, _u10, double, cosine_of_d4, cosine_of_d8)},
      inputs_of_one<double>(200000));
}

TEST(functions_of_two_doubles) {
  check_all<double>({AOTI_MATH_BINARY(DOUBLE_OF_TWO)}, inputs_of_two<double>(200000));
}

#endif

namespace {

using OverArray = void (*)(const float* x, float* y, int64_t n) noexcept;

// Whatever the length, within it and not beyond.
void check_array(OverArray function, double (*wanted)(double)) {
  for (int64_t n = 0; n <= 70; ++n) {
    std::vector<float> x(static_cast<size_t>(n) + 1);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = 0.1f + 0.07f * static_cast<float>(i);
    }
    std::vector<float> y(x.size(), -7.0f);
    function(x.data(), y.data(), n);
    EXPECT_EQ(y.back(), -7.0f);
    std::vector<float> in_place = x;
    function(in_place.data(), in_place.data(), n);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      EXPECT(error_of<float>(y[i], wanted(x[i])) <= 1.5);
      EXPECT_EQ(in_place[i], y[i]);
    }
    EXPECT_EQ(in_place.back(), x.back());
  }
}

}  // namespace

TEST(functions_of_arrays) {
#define CHECK_ARRAY(name) \
  check_array(aoti::native::name##_array, [](double x) { return std::name(x); });
  AOTI_MATH_ARRAYS(CHECK_ARRAY)
}
