// Single values: out of tensors, and into them.

#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/half.h>
#include <aoti/native/shim/symbols.h>

#include <complex>
#include <cstring>
#include <stdexcept>

namespace aoti::native {

namespace {

template <class Value>
int32_t item(const char* name, Handle tensor, ScalarType type, Value* value) {
  return served(name, [&] {
    if (tensor->numel() != 1) {
      throw std::invalid_argument("a tensor with more or less than one element has no value");
    }
    if (tensor->dtype() != type) {
      throw std::invalid_argument("the tensor is of another dtype");
    }
    std::memcpy(value, tensor->data(), sizeof(Value));
  });
}

template <class Value>
int32_t tensor_of(const char* name, ScalarType type, const Value& value, Handle* made) {
  return served(name, [&] {
    Tensor tensor = Tensor::empty(type, {});
    std::memcpy(tensor.data(), &value, sizeof(Value));
    hand_over(std::move(tensor), made);
  });
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

#define AOTI_ITEM(name, Value, type)                                        \
  AOTI_SERVED int32_t aotinative_item_##name(Handle tensor, Value* value) { \
    return item("item_" #name, tensor, ScalarType::type, value);            \
  }
#define AOTI_SCALAR(name, Value, type)                                                \
  AOTI_SERVED int32_t aotinative_scalar_to_tensor_##name(Value value, Handle* made) { \
    return tensor_of("scalar_to_tensor_" #name, ScalarType::type, value, made);       \
  }
#define AOTI_VALUE(name, Value, type) \
  AOTI_ITEM(name, Value, type)        \
  AOTI_SCALAR(name, Value, type)

AOTI_VALUE(float32, float, kFloat32)
AOTI_VALUE(float64, double, kFloat64)
AOTI_VALUE(uint8, uint8_t, kUInt8)
AOTI_VALUE(uint16, uint16_t, kUInt16)
AOTI_VALUE(uint32, uint32_t, kUInt32)
AOTI_VALUE(uint64, uint64_t, kUInt64)
AOTI_VALUE(int8, int8_t, kInt8)
AOTI_VALUE(int16, int16_t, kInt16)
AOTI_VALUE(int32, int32_t, kInt32)
AOTI_VALUE(int64, int64_t, kInt64)
AOTI_VALUE(bool, bool, kBool)
AOTI_VALUE(complex64, std::complex<float>, kComplex64)
AOTI_SCALAR(complex128, std::complex<double>, kComplex128)
AOTI_ITEM(float16, Float16, kFloat16)
AOTI_ITEM(bfloat16, BFloat16, kBFloat16)
