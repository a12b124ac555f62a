#pragma once

// Matrices of random numbers, of any layout, that begin or end where nothing may be read.

#include <aoti/native/kernels/gemm/gemm.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "guarded.h"

struct Random {
  uint64_t state = 1;

  uint32_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33);
  }
  int64_t below(int64_t limit) { return bits() % static_cast<uint32_t>(limit); }
  float number() { return static_cast<float>(bits()) / (1u << 30) - 1; }
};

inline Random dice;

enum Layout {
  kRows,
  kColumns,
  kPaddedRows,
  kPaddedColumns,
  kSpread,
  kOneRow,
  kOneColumn,
  kReversed
};
inline constexpr int kLayouts = 8;

// Between its elements lie NaNs.
inline aoti::native::Matrix make_matrix(
    const Guarded& memory, int64_t rows, int64_t columns, Layout layout) {
  aoti::native::Matrix matrix = {nullptr, columns, 1};
  switch (layout) {
    case kRows:
    case kReversed:
      break;
    case kColumns:
      matrix = {nullptr, 1, rows};
      break;
    case kPaddedRows:
      matrix.row_stride = columns + 3;
      break;
    case kPaddedColumns:
      matrix = {nullptr, 1, rows + 3};
      break;
    case kSpread:
      matrix = {nullptr, 3 * columns + 1, 3};
      break;
    case kOneRow:
      matrix.row_stride = 0;
      break;
    case kOneColumn:
      matrix = {nullptr, 1, 0};
      break;
  }
  if (rows == 0 || columns == 0) {
    return matrix;
  }
  const int64_t count = (rows - 1) * matrix.row_stride + (columns - 1) * matrix.column_stride + 1;
  float* const data = memory.place<float>(count, dice.below(2) == 0);
  std::fill(data, data + count, std::numeric_limits<float>::quiet_NaN());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      data[i * matrix.row_stride + j * matrix.column_stride] = dice.number();
    }
  }
  matrix.data = data;
  if (layout == kReversed) {
    matrix = {data + count - 1, -matrix.row_stride, -matrix.column_stride};
  }
  return matrix;
}

inline float at(aoti::native::Matrix matrix, int64_t i, int64_t j) {
  return matrix.data[i * matrix.row_stride + j * matrix.column_stride];
}
