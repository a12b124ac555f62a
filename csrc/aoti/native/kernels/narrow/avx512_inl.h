// How kernels of vectors of 512 bits divide a product. Included like tiles_inl.h, behind it.

// With the vectors of b and one of a, tiles take 29 to 31 of 32 registers. Kernel::kRows is how
// many rows one of four vectors has.
template <class Kernel>
void multiply(
    const NarrowProduct<typename Kernel::Left, typename Kernel::Right, typename Kernel::Sum>&
        x) noexcept {
  const Operands<Kernel> operands = {x.k, x.a, x.a_stride, x.b, x.n, x.c, x.c_stride, false};
  int64_t j = 0;
  for (; x.n - j >= 64; j += 64) {
    strip<Kernel, Kernel::kRows, 4>(operands, x.m, j);
  }
  if (x.n - j == 48) {
    strip<Kernel, 9, 3>(operands, x.m, j);
  } else if (x.n - j == 32) {
    strip<Kernel, 14, 2>(operands, x.m, j);
  } else if (x.n - j == 16) {
    strip<Kernel, 14, 1>(operands, x.m, j);
  }
}
