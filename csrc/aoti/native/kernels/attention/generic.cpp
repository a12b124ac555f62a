#include <aoti/native/kernels/attention/task.h>

#include <cstddef>
#include <cstdint>

namespace aoti::native::attention {

namespace {

// The compiler's own vectors of four: SSE on x86-64, NEON on aarch64.
struct Vector {
  typedef float Register __attribute__((vector_size(16)));
  typedef int32_t Integers __attribute__((vector_size(16)));
  typedef uint32_t Bits __attribute__((vector_size(16)));
  using Tail = int64_t;

  static constexpr int kWidth = 4;
  static constexpr int kTileRows = 6;  // by 2: 12 of at least 16 registers are sums
  static constexpr int kDots = 4;
  static constexpr int kRowVectors = 8;

  // The first `count` lanes: 1 to all.
  static Tail tail(int64_t count) { return count; }

  static Register zero() { return Register{}; }
  static Register set(float x) { return Register{x, x, x, x}; }
  static Register load(const float* data) {
    Register x;
    __builtin_memcpy(&x, data, sizeof x);
    return x;
  }
  static Register load(const float* data, Tail tail) {
    Register x{};
    for (int64_t i = 0; i < tail; ++i) {
      x[i] = data[i];
    }
    return x;
  }
  static void store(float* data, Register x) { __builtin_memcpy(data, &x, sizeof x); }
  static void store(float* data, Register x, Tail tail) {
    for (int64_t i = 0; i < tail; ++i) {
      data[i] = x[i];
    }
  }

  static Register add(Register a, Register b) { return a + b; }
  static Register sub(Register a, Register b) { return a - b; }
  static Register mul(Register a, Register b) { return a * b; }
  static Register fma(Register a, Register b, Register c) { return a * b + c; }
  static Register max(Register a, Register b) { return a > b ? a : b; }  // NaN: b

  static Integers less(Register a, Register b) { return a < b; }
  static Register zero_where(Integers mask, Register x) { return mask ? Register{} : x; }
  // x * 2^n, where the low bits of `shifted` are n + 127.
  static Register times_power(Register x, Register shifted) {
    return x * (Register)((Bits)shifted << 23);
  }
  static Register zero_for_minus_infinity(Register x) {
    return zero_where(x == set(-__builtin_inff()), x);
  }
  // -inf in the lanes before lane `first`.
  static Register from_lane(Register x, int64_t first) {
    const int32_t bound = static_cast<int32_t>(first < 0 ? 0 : first > kWidth ? kWidth : first);
    const Integers lanes{0, 1, 2, 3};
    return lanes < Integers{bound, bound, bound, bound} ? set(-__builtin_inff()) : x;
  }

  static void store_sums(float* sums, const Register (&x)[kDots]) {
    for (int k = 0; k < kDots; ++k) {
      sums[k] = (x[k][0] + x[k][2]) + (x[k][1] + x[k][3]);
    }
  }

  static Register widen_float16(const uint16_t* data) {
    return Register{half(data[0]), half(data[1]), half(data[2]), half(data[3])};
  }
  static Register widen_bfloat16(const uint16_t* data) {
    const Bits bits{data[0], data[1], data[2], data[3]};
    return (Register)(bits << 16);
  }
  static void narrow_float16(uint16_t* data, Register x) {
    for (int i = 0; i < kWidth; ++i) {
      data[i] = half(x[i]);
    }
  }
  static void narrow_bfloat16(uint16_t* data, Register x) {
    const Bits bits = (Bits)x;
    for (int i = 0; i < kWidth; ++i) {
      const uint32_t rounded = (bits[i] + 0x7FFF + (bits[i] >> 16 & 1)) >> 16;
      data[i] = static_cast<uint16_t>(x[i] != x[i] ? 0x7FC0 : rounded);
    }
  }

 private:
  static float as_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }

  static float half(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
    const uint32_t rest = bits & 0x7FFF;
    if (rest >= 0x7C00) {
      return as_float(sign | 0x7F800000 | (rest & 0x3FF) << 13);
    }
    // As a float whose exponent is too small by 112; subnormal numbers become normal on the way.
    const float scaled = as_float(rest << 13) * as_float((127 + 112) << 23);
    return as_float(sign | __builtin_bit_cast(uint32_t, scaled));
  }

  static uint16_t half(float x) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t rest = bits & 0x7FFFFFFF;
    uint32_t result;
    if (rest > 0x7F800000) {
      result = 0x7E00;
    } else if (rest >= 0x47800000) {
      result = 0x7C00;
    } else if (rest < 0x38800000) {  // subnormal: the addition rounds
      result = __builtin_bit_cast(uint32_t, as_float(rest) + 0.5F) - 0x3F000000;
    } else {
      result = (rest + 0xFFF + (rest >> 13 & 1) - (112U << 23)) >> 13;
    }
    return static_cast<uint16_t>(sign | result);
  }
};

}  // namespace

}  // namespace aoti::native::attention

#include <aoti/native/kernels/attention/common_inl.h>
#include <aoti/native/kernels/attention/panels_inl.h>
#include <aoti/native/kernels/attention/rows_inl.h>

namespace aoti::native::attention {

const Backend generic_backend{kWidth, run};

}  // namespace aoti::native::attention
