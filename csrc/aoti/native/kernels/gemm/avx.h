// What AVX2 and AVX-512 do alike, in AVX registers. Included like loops.h, before it.

constexpr int64_t kBlock = 8;

inline float add_8_lanes(__m256 vector) noexcept {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(vector), _mm256_extractf128_ps(vector, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

inline void transpose_8x8(
    const float* from, int64_t from_stride, float* to, int64_t to_stride) noexcept {
  // Halves of rows r and r + 4 side by side, so that two rounds of shuffles are enough.
  __m256 rows[8];
#pragma GCC unroll 16
  for (int r = 0; r < 4; ++r) {
    const float* const low = from + r * from_stride;
    const float* const high = low + 4 * from_stride;
    rows[r] =
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
    rows[r + 4] = _mm256_insertf128_ps(
        _mm256_castps128_ps256(_mm_loadu_ps(low + 4)), _mm_loadu_ps(high + 4), 1);
  }
#pragma GCC unroll 16
  for (int half = 0; half < 8; half += 4) {
    const __m256 low01 = _mm256_unpacklo_ps(rows[half], rows[half + 1]);
    const __m256 high01 = _mm256_unpackhi_ps(rows[half], rows[half + 1]);
    const __m256 low23 = _mm256_unpacklo_ps(rows[half + 2], rows[half + 3]);
    const __m256 high23 = _mm256_unpackhi_ps(rows[half + 2], rows[half + 3]);
    float* const out = to + half * to_stride;
    _mm256_storeu_ps(out, _mm256_shuffle_ps(low01, low23, 0x44));
    _mm256_storeu_ps(out + to_stride, _mm256_shuffle_ps(low01, low23, 0xee));
    _mm256_storeu_ps(out + 2 * to_stride, _mm256_shuffle_ps(high01, high23, 0x44));
    _mm256_storeu_ps(out + 3 * to_stride, _mm256_shuffle_ps(high01, high23, 0xee));
  }
}

void transpose_blocks(
    int64_t rows,
    int64_t columns,
    const float* from,
    int64_t from_stride,
    float* to,
    int64_t to_stride) noexcept {
  for (int64_t i = 0; i < rows; i += kBlock) {
    for (int64_t j = 0; j < columns; j += kBlock) {
      transpose_8x8(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
    }
  }
}
