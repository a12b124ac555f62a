#include <aoti/core/tensor.h>
#include <aoti/core/values.h>

#include "arrays.h"
#include "expect.h"

#include <cstdint>
#include <limits>
#include <vector>

namespace aoti {

namespace {

template <class Element>
bool within(
    const std::vector<Element>& memory,
    const Shape& shape,
    DType dtype,
    int64_t low,
    int64_t high) {
  return all_within(shape.over(memory.data(), dtype), low, high);
}

// Puts a value out of range in each place of a tensor, and in each place that is not its own.
template <class Element>
void look_everywhere(DType dtype, const Shape& shape) {
  constexpr int kMost = 64;
  std::vector<Element> memory(kMost, 1);
  std::vector<bool> own(kMost, false);
  for (int64_t i = 0; i < count_elements(shape.over(nullptr, dtype)); ++i) {
    int64_t left = i, at = 0;
    for (std::size_t dim = shape.sizes.size(); dim-- > 0;) {
      at += left % shape.sizes[dim] * shape.strides[dim];
      left /= shape.sizes[dim];
    }
    own[static_cast<std::size_t>(at)] = true;
  }
  EXPECT(within(memory, shape, dtype, 0, 5));
  for (std::size_t i = 0; i < kMost; ++i) {
    memory[i] = 6;
    EXPECT_EQ(within(memory, shape, dtype, 0, 5), !own[i]);
    memory[i] = 1;
  }
}

template <class Element>
void look_in_every_layout(DType dtype) {
  look_everywhere<Element>(dtype, Shape({}));
  look_everywhere<Element>(dtype, Shape({3, 4, 5}));
  look_everywhere<Element>(dtype, Shape({3, 4, 5}, {1, 3, 12}));
  look_everywhere<Element>(dtype, Shape({2, 3, 2}, {20, 6, 3}));
  look_everywhere<Element>(dtype, Shape({2, 3, 4}, {0, 6, 1}));
  look_everywhere<Element>(dtype, Shape({5}, {3}));
  look_everywhere<Element>(dtype, Shape({1, 5, 1}, {99, 2, 99}));
}

}  // namespace

TEST(every_element_of_every_layout_is_looked_at_and_no_other) {
  look_in_every_layout<int8_t>(make_dtype(kDLInt, 8));
  look_in_every_layout<uint8_t>(kUInt8);
  look_in_every_layout<int16_t>(make_dtype(kDLInt, 16));
  look_in_every_layout<int32_t>(kInt32);
  look_in_every_layout<int64_t>(kInt64);
}

TEST(both_bounds_belong_to_the_range) {
  const Shape shape({2});
  EXPECT(within<int32_t>({-3, 7}, shape, kInt32, -3, 7));
  EXPECT(!within<int32_t>({-4, 7}, shape, kInt32, -3, 7));
  EXPECT(!within<int32_t>({-3, 8}, shape, kInt32, -3, 7));
  EXPECT(!within<int32_t>({0, 0}, shape, kInt32, 1, 0));
}

TEST(the_ends_of_a_dtype_are_compared_as_they_are) {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const Shape shape({2});
  EXPECT(within<int64_t>({kLeast, kMost}, shape, kInt64, kLeast, kMost));
  EXPECT(!within<int64_t>({kLeast, 0}, shape, kInt64, kLeast + 1, kMost));
  EXPECT(!within<int8_t>({-128, 0}, shape, make_dtype(kDLInt, 8), 0, 255));
  EXPECT(within<uint8_t>({255, 0}, shape, kUInt8, 0, 255));
  EXPECT(!within<uint8_t>({255, 0}, shape, kUInt8, 0, 254));
}

TEST(an_empty_tensor_has_no_value_out_of_range) {
  EXPECT(within<int32_t>({}, Shape({3, 0}), kInt32, 1, 0));
  EXPECT(within<int32_t>({}, Shape({0, 3}, {7, 2}), kInt32, 1, 0));
}

TEST(dtypes_that_do_not_index_are_not_looked_at) {
  const std::vector<int64_t> memory(1, 100);
  for (int code : {kDLFloat, kDLBool, kDLComplex, kDLBfloat}) {
    EXPECT(within(memory, Shape({}), make_dtype(code, 8), 0, 5));
  }
  for (int bits : {16, 32, 64}) {
    EXPECT(within(memory, Shape({}), make_dtype(kDLUInt, bits), 0, 5));
  }
  EXPECT(within(memory, Shape({}), make_dtype(kDLInt, 4), 0, 5));
  EXPECT(within(memory, Shape({}), dtype_of({kDLInt, 32, 2}), 0, 5));
}

TEST(a_byte_offset_and_negative_strides_are_followed) {
  const int32_t memory[] = {9, 1, 2, 9};
  const Shape forwards({2}), backwards({2}, {-1});
  DLTensor view = forwards.over(memory, kInt32);
  EXPECT(!all_within(view, 0, 5));
  view.byte_offset = 4;
  EXPECT(all_within(view, 0, 5));
  EXPECT(all_within(backwards.over(memory + 2, kInt32), 0, 5));
  EXPECT(!all_within(backwards.over(memory + 3, kInt32), 0, 5));
}

TEST(the_highest_rank_is_looked_at) {
  std::vector<int64_t> sizes(kMaxRank, 1), strides(kMaxRank, 0);
  sizes[10] = 2;
  strides[10] = 3;
  EXPECT(within<int32_t>({1, 9, 9, 2}, Shape(sizes, strides), kInt32, 0, 5));
  EXPECT(!within<int32_t>({1, 9, 9, 6}, Shape(sizes, strides), kInt32, 0, 5));
}

}  // namespace aoti
