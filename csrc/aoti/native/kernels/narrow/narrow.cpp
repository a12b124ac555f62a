#include <aoti/native/kernels/narrow/narrow.h>

namespace aoti::native {

NarrowKernels narrow_kernels([[maybe_unused]] Isa isa) noexcept {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) {
    const bool vnni = __builtin_cpu_supports("avx512vnni");
    const bool bf16 = __builtin_cpu_supports("avx512bf16");
    return {
        vnni ? multiply_bytes_vnni : multiply_bytes_avx2,
        multiply_wide_avx512,
        bf16 ? multiply_halves_bf16 : multiply_halves_avx512};
  }
  if (isa == Isa::kAvx2) {
    return {multiply_bytes_avx2, multiply_wide_avx2, multiply_halves_avx2};
  }
#endif
  return {nullptr, nullptr, nullptr};
}

const NarrowKernels& narrow_kernels() noexcept {
  static const NarrowKernels kernels = narrow_kernels(isa());
  return kernels;
}

}  // namespace aoti::native
