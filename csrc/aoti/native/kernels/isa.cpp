#include <aoti/native/kernels/isa.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace aoti::native {

namespace {

Isa of_this_cpu() noexcept {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return !avx2 ? Isa::kGeneric : avx512 ? Isa::kAvx512 : Isa::kAvx2;
#else
  return Isa::kGeneric;
#endif
}

Isa choose() noexcept {
  const Isa best = of_this_cpu();
  const char* const wanted = std::getenv("AOTI_ISA");
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512}) {
    if (wanted != nullptr && std::strcmp(wanted, name_of(isa)) == 0) {
      return std::min(isa, best);
    }
  }
  return best;
}

}  // namespace

Isa isa() noexcept {
  static const Isa chosen = choose();
  return chosen;
}

const char* name_of(Isa isa) noexcept {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kGeneric:
      break;
  }
  return "generic";
}

}  // namespace aoti::native
