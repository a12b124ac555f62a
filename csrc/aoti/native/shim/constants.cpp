// Numbers that compiled code asks for: dtypes, devices, layouts, memory formats. Those of PyTorch:
// c10/core/DeviceType.h, Layout.h and MemoryFormat.h.

#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

using aoti::native::ScalarType;

#define AOTI_NUMBER(name, number) \
  AOTI_SERVED int32_t aotinative_##name() { return static_cast<int32_t>(number); }

AOTI_NUMBER(device_type_cpu, 0)
AOTI_NUMBER(device_type_cuda, 1)
AOTI_NUMBER(device_type_xpu, 12)
AOTI_NUMBER(device_type_mps, 13)
AOTI_NUMBER(device_type_meta, 14)
AOTI_NUMBER(device_type_privateuse1, 20)

// The only layout that there is. A package whose constants oneDNN has packed asks for another one:
// it is left to libtorch.
AOTI_NUMBER(layout_strided, 0)

AOTI_NUMBER(memory_format_contiguous_format, 0)
AOTI_NUMBER(memory_format_preserve_format, 1)
AOTI_NUMBER(memory_format_channels_last, 2)
AOTI_NUMBER(memory_format_channels_last_3d, 3)

#define AOTI_DTYPE(name, type) AOTI_NUMBER(dtype_##name, ScalarType::type)

AOTI_DTYPE(uint8, kUInt8)
AOTI_DTYPE(uint16, kUInt16)
AOTI_DTYPE(uint32, kUInt32)
AOTI_DTYPE(uint64, kUInt64)
AOTI_DTYPE(int8, kInt8)
AOTI_DTYPE(int16, kInt16)
AOTI_DTYPE(int32, kInt32)
AOTI_DTYPE(int64, kInt64)
AOTI_DTYPE(float16, kFloat16)
AOTI_DTYPE(bfloat16, kBFloat16)
AOTI_DTYPE(float32, kFloat32)
AOTI_DTYPE(float64, kFloat64)
AOTI_DTYPE(complex32, kComplex32)
AOTI_DTYPE(complex64, kComplex64)
AOTI_DTYPE(complex128, kComplex128)
AOTI_DTYPE(bool, kBool)
AOTI_DTYPE(float8_e5m2, kFloat8_e5m2)
AOTI_DTYPE(float8_e4m3fn, kFloat8_e4m3fn)
AOTI_DTYPE(float8_e5m2fnuz, kFloat8_e5m2fnuz)
AOTI_DTYPE(float8_e4m3fnuz, kFloat8_e4m3fnuz)
AOTI_DTYPE(float8_e8m0fnu, kFloat8_e8m0fnu)
AOTI_DTYPE(float4_e2m1fn_x2, kFloat4_e2m1fn_x2)

AOTI_SERVED std::size_t aotinative_dtype_element_size(int32_t dtype) {
  int64_t size = 0;
  static_cast<void>(aoti::native::served("dtype_element_size", [&] {
    size = aoti::native::itemsize_of(static_cast<ScalarType>(dtype));
  }));
  return static_cast<std::size_t>(size);
}
