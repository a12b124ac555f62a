#pragma once

// The two 16-bit floating-point types: to float, and back with rounding to the nearest, ties to
// even, as PyTorch's (torch/headeronly/util/Half.h and BFloat16.h).

#include <bit>
#include <cstdint>

namespace aoti::native {

struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  explicit BFloat16(float value) noexcept {
    const auto word = std::bit_cast<uint32_t>(value);
    bits =
        value != value ? 0x7FC0 : static_cast<uint16_t>((word + 0x7FFF + ((word >> 16) & 1)) >> 16);
  }
  operator float() const noexcept {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

struct Float16 {
  uint16_t bits;

  Float16() = default;
  explicit Float16(float value) noexcept {
    const auto word = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (word >> 16) & 0x8000, rest = word & 0x7FFFFFFF;
    if (rest >= 0x47800000) {  // 65536 and more, infinities and NaN
      bits = static_cast<uint16_t>(sign | (rest > 0x7F800000 ? 0x7E00 : 0x7C00));
    } else if (rest < 0x38800000) {  // subnormal: the sum shifts the bits into place, and rounds
      constexpr uint32_t kMagic = 126u << 23;
      const float sum = std::bit_cast<float>(rest) + std::bit_cast<float>(kMagic);
      bits = static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - kMagic));
    } else {
      bits = static_cast<uint16_t>(sign | ((rest - 0x38000000 + 0xFFF + ((rest >> 13) & 1)) >> 13));
    }
  }
  operator float() const noexcept {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, rest = bits & 0x7FFF;
    if (rest >= 0x7C00) {
      return std::bit_cast<float>(sign | 0x7F800000 | (rest & 0x3FF) << 13);
    }
    if (rest < 0x400) {  // subnormal: exact
      const float value = static_cast<float>(rest) * 0x1p-24f;
      return sign != 0 ? -value : value;
    }
    return std::bit_cast<float>(sign | ((rest << 13) + 0x38000000));
  }
};

}  // namespace aoti::native
