#include <aoti/core/array_view.h>

#include "arrays.h"
#include "expect.h"

#include <cstdint>

namespace aoti {

TEST(strides_in_bytes_become_strides_in_elements) {
  const Shape shape({2, 3}, {12, 4});
  ArrayView array = shape.array(nullptr, kFloat32);
  int64_t strides[kMaxRank];
  array.unit = 1;
  own_strides(array, strides);
  EXPECT_EQ(strides[0], 3);
  EXPECT_EQ(strides[1], 1);
  array.unit = 4;
  own_strides(array, strides);
  EXPECT_EQ(strides[0], 12);
}

TEST(an_array_contains_the_addresses_from_its_first_to_its_last_element) {
  float memory[8] = {};
  const Shape shape({2, 2}, {4, 1});
  const ArrayView array = shape.array(memory + 1, kFloat32);
  EXPECT(!contains(array, memory));
  EXPECT(contains(array, memory + 1));
  EXPECT(contains(array, memory + 3));  // between two rows
  EXPECT(contains(array, reinterpret_cast<char*>(memory + 7) - 1));
  EXPECT(!contains(array, memory + 7));
}

TEST(an_array_with_a_negative_stride_begins_below_its_data) {
  float memory[4] = {};
  const Shape shape({3}, {-1});
  const ArrayView array = shape.array(memory + 2, kFloat32);
  EXPECT(contains(array, memory));
  EXPECT(contains(array, memory + 2));
  EXPECT(!contains(array, memory + 3));
}

TEST(an_empty_array_contains_nothing_and_a_scalar_itself) {
  float value = 0;
  EXPECT(!contains(Shape({2, 0}).array(&value, kFloat32), &value));
  EXPECT(contains(Shape({}).array(&value, kFloat32), &value));
}

TEST(strides_of_c_order_count_an_empty_dimension_as_one) {
  const Shape shape({2, 0, 3});
  EXPECT_EQ(shape.strides[0], 3);
  EXPECT_EQ(shape.strides[1], 3);
  EXPECT_EQ(shape.strides[2], 1);
}

TEST(sizes_that_overflow_have_some_strides) {
  const Shape shape({INT64_MAX, INT64_MAX, INT64_MAX, 0});
  EXPECT_EQ(shape.strides[2], 1);
  EXPECT_EQ(shape.strides[1], INT64_MAX);
}

}  // namespace aoti
