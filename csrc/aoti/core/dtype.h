#pragma once

// A dtype as one number: DLPack's DLDataType, packed. aoti/signature/dtypes.py has the names.

#include <dlpack/dlpack.h>

#include <bit>
#include <cstdint>

namespace aoti {

using DType = uint32_t;

constexpr DType kNoDType = 0;  // not known; every real dtype has a lane

static_assert(sizeof(DLDataType) == sizeof(DType));

constexpr DType dtype_of(DLDataType type) noexcept { return std::bit_cast<DType>(type); }
constexpr DLDataType dl_type_of(DType dtype) noexcept { return std::bit_cast<DLDataType>(dtype); }

// Bytes of one element; DLPack packs two float4 into one of two lanes.
constexpr int64_t itemsize_of(DLDataType type) noexcept { return (type.bits * type.lanes + 7) / 8; }
constexpr int64_t itemsize_of(DType dtype) noexcept { return itemsize_of(dl_type_of(dtype)); }

// A small number for a dtype, for lookup tables; dtypes of other sizes may share one.
constexpr int kDTypeSlots = 256;
constexpr int slot_of(DType dtype) noexcept {
  const DLDataType type = dl_type_of(dtype);
  return type.code % 32 * 8 + std::countr_zero(type.bits) % 8;
}

}  // namespace aoti
