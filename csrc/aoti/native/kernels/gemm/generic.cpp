// Products in plain C++: of vectors of 128 bits, which compilers lower to what any CPU has.

#include <aoti/native/kernels/gemm/gemm_kernels.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace aoti::native {

namespace {

typedef float Vector __attribute__((vector_size(16)));
typedef int32_t Bits __attribute__((vector_size(16)));

// For 1 to 3 lanes. A lane that is not in use loads what one in use does, and then becomes 0.
struct Mask {
  Bits used;
  int64_t second;
  int64_t third;
  int64_t lanes;
};

constexpr int64_t kWidth = 4;
constexpr int kRows = 6;
#if defined(__aarch64__)
constexpr int kVectors = 4;  // of 32 registers
constexpr int kFourRows = 6;
#else
constexpr int kVectors = 2;
constexpr int kFourRows = 3;
#endif
constexpr int kThreeRows = 0;
constexpr int kDotRows = 3;
constexpr int kDotColumns = 4;
constexpr int64_t kBlock = 4;

inline Vector zero() { return Vector{}; }
inline Vector splat(float value) { return Vector{value, value, value, value}; }
inline Vector load(const float* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}
inline Vector load(const float* from, const Mask& mask) {
  const Vector vector = {from[0], from[mask.second], from[mask.third], 0};
  return reinterpret_cast<Vector>(reinterpret_cast<Bits>(vector) & mask.used);
}
inline void store(float* to, Vector vector) { std::memcpy(to, &vector, sizeof vector); }
inline void store(float* to, Vector vector, const Mask& mask) {
  to[0] = vector[0];
  if (mask.lanes > 1) {
    to[1] = vector[1];
  }
  if (mask.lanes > 2) {
    to[2] = vector[2];
  }
}
inline Vector add(Vector a, Vector b) { return a + b; }
inline Vector multiply(Vector a, Vector b) { return a * b; }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
inline float add_lanes(Vector vector) { return (vector[0] + vector[2]) + (vector[1] + vector[3]); }
inline Mask first_lanes(int64_t lanes) {
  const auto used = [&](int64_t lane) { return lane < lanes ? -1 : 0; };
  return {
      Bits{used(0), used(1), used(2), used(3)}, std::min<int64_t>(lanes - 1, 1), lanes - 1, lanes};
}

void transpose_blocks(
    int64_t rows,
    int64_t columns,
    const float* from,
    int64_t from_stride,
    float* to,
    int64_t to_stride) noexcept {
  for (int64_t i = 0; i < rows; i += kBlock) {
    for (int64_t j = 0; j < columns; ++j) {
      const float* const at = from + i * from_stride + j;
      store(
          to + j * to_stride + i,
          Vector{at[0], at[from_stride], at[2 * from_stride], at[3 * from_stride]});
    }
  }
}

#include <aoti/native/kernels/gemm/loops.h>

}  // namespace

const GemmKernels generic_gemm_kernels = {
    kRows, kVectors * kWidth, kWidth, tiles, dot, dots, sweep, pack, transpose};

}  // namespace aoti::native
