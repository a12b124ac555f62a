#include <aoti/core/dtype.h>
#include <aoti/native/shim/dtype.h>

#include <stdexcept>
#include <string>

namespace aoti::native {

namespace {

struct Row {
  ScalarType type;
  DLDataType dl_type;
};

constexpr Row kTable[] = {
    {ScalarType::kFloat32, {kDLFloat, 32, 1}},
    {ScalarType::kInt64, {kDLInt, 64, 1}},
    {ScalarType::kInt32, {kDLInt, 32, 1}},
    {ScalarType::kBool, {kDLBool, 8, 1}},
    {ScalarType::kBFloat16, {kDLBfloat, 16, 1}},
    {ScalarType::kFloat16, {kDLFloat, 16, 1}},
    {ScalarType::kFloat64, {kDLFloat, 64, 1}},
    {ScalarType::kUInt8, {kDLUInt, 8, 1}},
    {ScalarType::kInt8, {kDLInt, 8, 1}},
    {ScalarType::kInt16, {kDLInt, 16, 1}},
    {ScalarType::kUInt16, {kDLUInt, 16, 1}},
    {ScalarType::kUInt32, {kDLUInt, 32, 1}},
    {ScalarType::kUInt64, {kDLUInt, 64, 1}},
    {ScalarType::kComplex64, {kDLComplex, 64, 1}},
    {ScalarType::kComplex128, {kDLComplex, 128, 1}},
    {ScalarType::kComplex32, {kDLComplex, 32, 1}},
    {ScalarType::kFloat8_e4m3fn, {kDLFloat8_e4m3fn, 8, 1}},
    {ScalarType::kFloat8_e4m3fnuz, {kDLFloat8_e4m3fnuz, 8, 1}},
    {ScalarType::kFloat8_e5m2, {kDLFloat8_e5m2, 8, 1}},
    {ScalarType::kFloat8_e5m2fnuz, {kDLFloat8_e5m2fnuz, 8, 1}},
    {ScalarType::kFloat8_e8m0fnu, {kDLFloat8_e8m0fnu, 8, 1}},
    {ScalarType::kFloat4_e2m1fn_x2, {kDLFloat4_e2m1fn, 4, 2}},
};

}  // namespace

DLDataType dl_type_of(ScalarType type) {
  for (const Row& row : kTable) {
    if (row.type == type) {
      return row.dl_type;
    }
  }
  throw std::invalid_argument(
      "no dtype has the number " + std::to_string(static_cast<int32_t>(type)));
}

ScalarType scalar_type_of(DLDataType type) {
  for (const Row& row : kTable) {
    if (dtype_of(row.dl_type) == dtype_of(type)) {
      return row.type;
    }
  }
  throw std::invalid_argument(
      "PyTorch has no dtype for DLPack's {code, bits, lanes} = {" + std::to_string(type.code) +
      ", " + std::to_string(type.bits) + ", " + std::to_string(type.lanes) + "}");
}

int64_t itemsize_of(ScalarType type) { return aoti::itemsize_of(dl_type_of(type)); }

}  // namespace aoti::native
