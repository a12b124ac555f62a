#pragma once

// The dtypes of compiled code: the numbers of PyTorch's ScalarType (c10/core/ScalarType.h), which
// are a part of the binary interface of every package.

#include <dlpack/dlpack.h>

#include <cstdint>

namespace aoti::native {

enum class ScalarType : int32_t {
  kUInt8 = 0,
  kInt8 = 1,
  kInt16 = 2,
  kInt32 = 3,
  kInt64 = 4,
  kFloat16 = 5,
  kFloat32 = 6,
  kFloat64 = 7,
  kComplex32 = 8,
  kComplex64 = 9,
  kComplex128 = 10,
  kBool = 11,
  kBFloat16 = 15,
  kFloat8_e5m2 = 23,
  kFloat8_e4m3fn = 24,
  kFloat8_e5m2fnuz = 25,
  kFloat8_e4m3fnuz = 26,
  kUInt16 = 27,
  kUInt32 = 28,
  kUInt64 = 29,
  kFloat8_e8m0fnu = 44,
  kFloat4_e2m1fn_x2 = 45,
};

// Both throw std::invalid_argument if the other side has no such dtype.
DLDataType dl_type_of(ScalarType type);
ScalarType scalar_type_of(DLDataType type);

// Bytes of an element. Throws std::invalid_argument for a number that is not one of ours.
int64_t itemsize_of(ScalarType type);

}  // namespace aoti::native
