#pragma once

// Which instructions the kernels use. The CPU decides, once, whatever a package was compiled for.

#include <cstdint>

namespace aoti::native {

enum class Isa : int32_t {
  kGeneric = 0,  // what the compiler makes of plain C++ for any CPU
  kAvx2 = 1,     // AVX2, FMA, F16C
  kAvx512 = 2,   // AVX-512 F, BW, DQ, VL, in addition
};

// The best that this CPU has. AOTI_ISA=generic, avx2 or avx512 asks for less: tests compare them.
Isa isa() noexcept;

const char* name_of(Isa isa) noexcept;

}  // namespace aoti::native
