#include <aoti/native/kernels/gemm/blocks.h>

#include <aoti/native/kernels/scratch.h>

#include <algorithm>
#include <cstring>

namespace aoti::native {

namespace {

// A panel of b, so many rows or elements of it, stays in the first cache; a block of a, or of few
// panels, in the second; a block of b in the third.
constexpr int64_t kDepth = 384;
constexpr int64_t kPanel = 8192;
constexpr int64_t kHeight = 144;
constexpr int64_t kWidth = 1024;
constexpr int64_t kNarrow = 128;

int64_t divided_up(int64_t size, int64_t by) noexcept { return (size + by - 1) / by; }

// The size of the parts, not above `most`, when `size` is cut into parts about equal.
int64_t even(int64_t size, int64_t most, int64_t unit) noexcept {
  return divided_up(divided_up(size, divided_up(size, most)), unit) * unit;
}

Matrix at(Matrix matrix, int64_t i, int64_t j) noexcept {
  matrix.data += i * matrix.row_stride + j * matrix.column_stride;
  return matrix;
}

// Panels of b, `columns` wide but for the last, with a row stride of kernels.columns.
void pack(
    const GemmKernels& kernels,
    int64_t rows,
    int64_t columns,
    Matrix from,
    float* to,
    int64_t depth) noexcept {
  if (from.column_stride == 1) {
    return kernels.pack(rows, columns, from.data, from.row_stride, to, depth);
  }
  const int64_t panel = kernels.columns;
  for (int64_t j = 0; j < columns; j += panel, to += depth * panel) {
    copy_rows(kernels, rows, std::min(panel, columns - j), at(from, 0, j), to, panel);
  }
}

}  // namespace

void copy_rows(
    const GemmKernels& kernels,
    int64_t rows,
    int64_t columns,
    Matrix from,
    float* to,
    int64_t to_stride) noexcept {
  if (from.row_stride == 1 && from.column_stride != 1) {
    return kernels.transpose(columns, rows, from.data, from.column_stride, to, to_stride);
  }
  for (int64_t i = 0; i < rows; ++i) {
    const float* const row = from.data + i * from.row_stride;
    if (from.column_stride == 1) {
      std::memcpy(to + i * to_stride, row, static_cast<size_t>(columns) * sizeof(float));
      continue;
    }
    for (int64_t j = 0; j < columns; ++j) {
      to[i * to_stride + j] = row[j * from.column_stride];
    }
  }
}

void packed(const GemmKernels& kernels, const Product& x) {
  const int64_t panel = kernels.columns;
  const int64_t depth = even(x.k, std::min(kDepth, kPanel / panel), 1);
  const int64_t height = even(x.m, kHeight, kernels.rows);
  // When all rows of a are one block, panels are used up at once. Columns that are contiguous are
  // copied one panel at a time, rows several.
  const bool once = x.m <= height;
  const int64_t most = !once ? kWidth : x.b.column_stride == 1 ? kNarrow : panel;
  const int64_t width = std::min(most, divided_up(x.n, panel) * panel);
  const int64_t a_stride = depth + 16;  // not a power of two: rows must not share sets of a cache
  const bool copies_a = x.a.column_stride != 1;
  const Scratch right(Scratch::kRight, depth * width);
  const Scratch left(Scratch::kLeft, copies_a ? height * a_stride : 0);

  for (int64_t j = 0; j < x.n; j += width) {
    const int64_t columns = std::min(width, x.n - j);
    for (int64_t p = 0; p < x.k; p += depth) {
      const int64_t sums = std::min(depth, x.k - p);
      pack(kernels, sums, columns, at(x.b, p, j), right.data(), depth);
      for (int64_t i = 0; i < x.m; i += height) {
        Product part = x;
        part.m = std::min(height, x.m - i);
        part.k = sums;
        part.a = at(x.a, i, p);
        part.beta = p == 0 ? x.beta : 1;
        part.c += i * x.c_row_stride + j;
        if (copies_a) {
          copy_rows(kernels, part.m, sums, part.a, left.data(), a_stride);
          part.a = {left.data(), a_stride, 1};
        }
        part.b = {right.data(), panel, 1};
        for (int64_t done = 0; done < columns; done += panel) {
          part.n = std::min(panel, columns - done);
          kernels.tiles(part);
          part.b.data += depth * panel;
          part.c += panel;
        }
      }
    }
  }
}

void in_steps(const GemmKernels& kernels, const Product& x, int64_t depth) noexcept {
  int64_t p = 0;
  do {  // once if k is 0
    Product part = x;
    part.k = std::min(depth, x.k - p);
    part.a = at(x.a, 0, p);
    part.b = at(x.b, p, 0);
    part.beta = p == 0 ? x.beta : 1;
    part.ahead = x.ahead == 0 ? 0 : part.k * x.n;
    kernels.tiles(part);
    p += depth;
  } while (p < x.k);
}

void unpacked(const GemmKernels& kernels, const Product& x, int64_t depth) noexcept {
  const int64_t width = 8192 / depth;  // of a block of b that is used up in the first cache
  for (int64_t j = 0; j < x.n; j += width) {
    Product part = x;
    part.n = std::min(width, x.n - j);
    part.b = at(x.b, 0, j);
    part.c += j;
    in_steps(kernels, part, depth);
  }
}

}  // namespace aoti::native
