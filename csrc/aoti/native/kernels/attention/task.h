#pragma once

// How attend() divides its work, for the files that do it with one set of instructions each.

#include <aoti/native/kernels/attention/attention.h>
#include <aoti/native/kernels/isa.h>

#include <cstdint>

namespace aoti::native::attention {

// Some queries of one head.
struct Task {
  int64_t batch;
  int64_t head;
  int64_t first;
  int64_t count;
};

// Where things are in the scratch memory of a thread, counted in floats.
struct Layout {
  int64_t query;    // by rows or transposed, in panels
  int64_t scores;   // then the weights
  int64_t output;   // before the division by the sums
  int64_t maximum;  // three numbers for each query
  int64_t sum;
  int64_t factor;
  int64_t bias;  // the mask of a block of keys, where all queries have the same
  int64_t keys;  // a block of each, where it is not in the form that the kernels read
  int64_t values;
  int64_t packed;  // some of the values, in panels
  int64_t size;
};

struct Plan {
  Attention attention;
  bool by_rows;      // few queries: a product of vectors for each score
  bool copy_keys;    // not float32, or columns with a stride
  bool copy_values;  //
  int64_t query_block;
  int64_t key_block;
  Layout layout;
};

struct Backend {
  int64_t width;  // floats in a vector
  void (*run)(const Plan& plan, const Task& task, float* scratch);
};

inline constexpr int64_t kPanelVectors = 2;  // a panel has so many vectors of queries
inline constexpr int64_t kValueKeys = 128;   // keys whose values stay in the first cache
inline constexpr int64_t kAlignment = 16;    // of what a layout places, in floats

extern const Backend generic_backend;
#if defined(__x86_64__)
extern const Backend avx2_backend;
extern const Backend avx512_backend;
#endif

const Backend& backend_of(Isa isa) noexcept;

// attend() with the instructions that are said, which the CPU must have.
void attend_with(const Backend& backend, const Attention& attention);

}  // namespace aoti::native::attention
