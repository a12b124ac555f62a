#pragma once

// Scaled dot-product attention on the CPU: softmax(scale * query * key^T + mask) * value.
//
// The keys are taken block by block with a running maximum and sum, so that the memory it takes
// does not grow with them. The result does not depend on the number of threads.

#include <cstdint>

namespace aoti::native {

struct AttentionShape {
  int64_t batch;
  int64_t heads;
  int64_t key_heads;  // heads of key and value; heads / key_heads neighbours share one
  int64_t queries;
  int64_t keys;
  int64_t head_size;   // of query and key
  int64_t value_size;  // of value and output
};

struct Strides4 {  // in elements; 0 repeats what is there
  int64_t batch;
  int64_t head;
  int64_t row;
  int64_t column;
};

struct Strides3 {
  int64_t batch;
  int64_t head;
  int64_t row;
};

struct Attention {
  enum class Element : int32_t { kFloat32, kBFloat16, kFloat16 };
  enum class Mask : int32_t {
    kNone,
    kFloat,     // added to the scores, as the next two
    kBFloat16,  //
    kFloat16,   //
    kBool,      // a byte; 0 is -inf
  };

  AttentionShape shape{};
  Element element = Element::kFloat32;  // of query, key, value and output
  const void* query = nullptr;          // (batch, heads, queries, head_size)
  Strides4 query_strides{};
  const void* key = nullptr;  // (batch, key_heads, keys, head_size)
  Strides4 key_strides{};
  const void* value = nullptr;  // (batch, key_heads, keys, value_size)
  Strides4 value_strides{};
  const void* mask = nullptr;  // (batch, heads, queries, keys)
  Strides4 mask_strides{};
  Mask mask_kind = Mask::kNone;
  bool causal = false;  // query i sees the keys 0 to i
  float scale = 1;
  void* output = nullptr;  // (batch, heads, queries, value_size)
  Strides4 output_strides{};
  float* log_sum_exp = nullptr;  // (batch, heads, queries), or nothing
  Strides3 log_sum_exp_strides{};
};

// A query may see no key: the mask hides all of them, or there are none. Its output and its
// log_sum_exp are then 0, as in ATen. NaN in a query, in a key it sees or in its mask makes NaN;
// ATen makes zeros of a query that is NaN where keys are fewer than a vector has lanes and have no
// mask. NaN or infinity among the values of a key makes NaN even where the mask gives it no weight.
// Runs on OpenMP's threads, alone where it is called in a parallel region. Throws std::bad_alloc.
void attend(const Attention& attention);

}  // namespace aoti::native
