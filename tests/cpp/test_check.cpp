#include <aoti/core/check.h>

#include "arrays.h"
#include "expect.h"

#include <cstdint>
#include <vector>

namespace aoti {

namespace {

Size fixed(int64_t size) { return {0, 0, size}; }
Size symbol(int64_t number, int64_t scale = 1, int64_t offset = 0) {
  return {number, scale, offset};
}

// A call: symbols are bound from one input to the next.
struct Call {
  std::vector<Range> ranges = std::vector<Range>(kMaxSymbols);
  std::vector<int64_t> symbols = std::vector<int64_t>(kMaxSymbols, kUnbound);
  int64_t strides[kMaxRank] = {};

  Mismatch check(const InputSpec& spec, const ArrayView& array) {
    return aoti::check(spec, array, ranges.data(), symbols.data(), strides);
  }
};

InputSpec spec_of(DType dtype, std::vector<Size> sizes) {
  InputSpec spec;
  spec.dtype = dtype;
  spec.rank = static_cast<int>(sizes.size());
  spec.sizes = std::move(sizes);
  return spec;
}

void expect(
    const Mismatch& mismatch,
    MismatchKind kind,
    int dim = -1,
    int64_t expected = 0,
    int64_t got = 0) {
  EXPECT_EQ(mismatch.kind, kind);
  EXPECT_EQ(mismatch.dim, dim);
  EXPECT_EQ(mismatch.expected, expected);
  EXPECT_EQ(mismatch.got, got);
  EXPECT_EQ(static_cast<bool>(mismatch), kind != MismatchKind::kNone);
}

alignas(64) float memory[64];

}  // namespace

TEST(an_array_that_fits_has_no_mismatch_and_gets_its_strides) {
  Call call;
  const Shape shape({2, 3, 4});
  expect(
      call.check(spec_of(kFloat32, {fixed(2), fixed(3), fixed(4)}), shape.array(memory, kFloat32)),
      MismatchKind::kNone);
  EXPECT_EQ(call.strides[0], 12);
  EXPECT_EQ(call.strides[1], 4);
  EXPECT_EQ(call.strides[2], 1);
}

TEST(the_default_accepts_any_c_contiguous_array) {
  Call call;
  expect(call.check({}, Shape({2, 3}).array(memory, kFloat32)), MismatchKind::kNone);
  expect(call.check({}, Shape({}).array(memory, kFloat64)), MismatchKind::kNone);
  expect(
      call.check({}, Shape({2, 3}, {1, 2}).array(memory, kFloat32)),
      MismatchKind::kStrides,
      0,
      3,
      4);
}

TEST(the_highest_rank_is_checked) {
  Call call;
  expect(
      call.check({}, Shape(std::vector<int64_t>(kMaxRank, 1)).array(memory, kFloat32)),
      MismatchKind::kNone);
}

TEST(a_scalar_has_no_sizes_to_check) {
  Call call;
  expect(call.check(spec_of(kFloat32, {}), Shape({}).array(memory, kFloat32)), MismatchKind::kNone);
}

// -- what can be wrong ----------------------------------------------------------------------------

TEST(another_dtype) {
  Call call;
  expect(
      call.check(spec_of(kFloat32, {}), Shape({}).array(memory, kFloat64)),
      MismatchKind::kDType,
      -1,
      kFloat32,
      kFloat64);
}

TEST(another_rank) {
  Call call;
  expect(
      call.check(spec_of(kFloat32, {fixed(2)}), Shape({2, 1}).array(memory, kFloat32)),
      MismatchKind::kRank,
      -1,
      1,
      2);
}

TEST(another_static_size) {
  Call call;
  expect(
      call.check(spec_of(kFloat32, {fixed(2), fixed(3)}), Shape({2, 4}).array(memory, kFloat32)),
      MismatchKind::kSize,
      1,
      3,
      4);
}

TEST(a_size_that_is_no_value_of_its_expression) {
  Call call;
  const InputSpec spec = spec_of(kFloat32, {symbol(0, 2, 1)});
  expect(call.check(spec, Shape({4}).array(memory, kFloat32)), MismatchKind::kSize, 0, 0, 4);
  EXPECT_EQ(call.symbols[0], kUnbound);
  expect(call.check(spec, Shape({0}).array(memory, kFloat32)), MismatchKind::kSize, 0, 0, 0);
  expect(call.check(spec, Shape({5}).array(memory, kFloat32)), MismatchKind::kNone);
  EXPECT_EQ(call.symbols[0], 2);
}

TEST(a_size_below_the_offset_of_its_expression) {
  Call call;
  expect(
      call.check(spec_of(kFloat32, {symbol(0, 1, 3)}), Shape({2}).array(memory, kFloat32)),
      MismatchKind::kSize,
      0,
      0,
      2);
}

TEST(a_wrong_static_size_is_reported_before_a_wrong_dynamic_one) {
  InputSpec spec;
  spec.rank = 2;
  spec.sizes = {Size{0, 1, 0}, Size{0, 0, 10}};
  const Range ranges[] = {{1, 1024}};
  int64_t symbols[] = {kUnbound}, strides[kMaxRank];
  const int64_t sizes[] = {2000, 9}, steps[] = {9, 1};
  float memory[1] = {};
  ArrayView array;
  array.data = memory;
  array.rank = 2;
  array.itemsize = array.unit = 4;
  array.sizes = sizes;
  array.strides = steps;
  const Mismatch mismatch = check(spec, array, ranges, symbols, strides);
  EXPECT(mismatch.kind == MismatchKind::kSize);
  EXPECT_EQ(mismatch.dim, 1);
  EXPECT_EQ(mismatch.expected, int64_t{10});
  EXPECT_EQ(mismatch.got, int64_t{9});
}

TEST(a_size_out_of_its_range_binds_nothing) {
  Call call;
  call.ranges[3] = {2, 4};
  const InputSpec spec = spec_of(kFloat32, {fixed(1), symbol(3)});
  expect(call.check(spec, Shape({1, 1}).array(memory, kFloat32)), MismatchKind::kRange, 1, 2, 1);
  expect(call.check(spec, Shape({1, 5}).array(memory, kFloat32)), MismatchKind::kRange, 1, 4, 5);
  EXPECT_EQ(call.symbols[3], kUnbound);
  for (int64_t size : {2, 4}) {
    call.symbols[3] = kUnbound;
    expect(call.check(spec, Shape({1, size}).array(memory, kFloat32)), MismatchKind::kNone);
    EXPECT_EQ(call.symbols[3], size);
  }
}

TEST(the_range_is_that_of_the_symbol_and_the_message_is_about_the_size) {
  Call call;
  call.ranges[0] = {0, 3};
  expect(
      call.check(spec_of(kFloat32, {symbol(0, 2)}), Shape({8}).array(memory, kFloat32)),
      MismatchKind::kRange,
      0,
      3,
      8);
}

TEST(a_null_pointer) {
  Call call;
  expect(
      call.check(spec_of(kFloat32, {fixed(1)}), Shape({1}).array(nullptr, kFloat32)),
      MismatchKind::kNull);
}

TEST(an_address_that_is_aligned_to_less_than_its_elements) {
  Call call;
  const char* bytes = reinterpret_cast<const char*>(memory);
  expect(call.check({}, Shape({1}).array(bytes + 2, kFloat32)), MismatchKind::kAlignment, -1, 4, 2);
  expect(call.check({}, Shape({1}).array(bytes + 4, kFloat64)), MismatchKind::kAlignment, -1, 8, 4);
  expect(call.check({}, Shape({1}).array(bytes + 1, kUInt8)), MismatchKind::kNone);
}

TEST(a_complex_number_is_aligned_as_its_parts_are) {
  Call call;
  const char* bytes = reinterpret_cast<const char*>(memory);
  const DType complex128 = make_dtype(kDLComplex, 128);
  expect(call.check({}, Shape({1}).array(bytes + 8, complex128)), MismatchKind::kNone);
  expect(
      call.check({}, Shape({1}).array(bytes + 4, complex128)), MismatchKind::kAlignment, -1, 8, 4);
}

TEST(other_strides_are_reported_in_elements_and_in_bytes) {
  Call call;
  const InputSpec spec = spec_of(kFloat32, {fixed(2), fixed(3)});
  expect(
      call.check(spec, Shape({2, 3}, {6, 2}).array(memory, kFloat32)),
      MismatchKind::kStrides,
      0,
      3,
      24);
  expect(
      call.check(spec, Shape({2, 3}, {3, -1}).array(memory, kFloat32)),
      MismatchKind::kStrides,
      1,
      1,
      -4);
  Shape bytes({2, 3}, {12, 4});  // as numpy counts
  ArrayView array = bytes.array(memory, kFloat32);
  array.unit = 1;
  expect(call.check(spec, array), MismatchKind::kNone);
  bytes.strides[1] = 8;
  expect(call.check(spec, array), MismatchKind::kStrides, 1, 1, 8);
}

TEST(a_stride_that_is_no_multiple_of_the_itemsize) {
  Call call;
  const Shape shape({2}, {6});
  ArrayView array = shape.array(memory, kFloat32);
  array.unit = 1;
  expect(call.check(spec_of(kFloat32, {fixed(2)}), array), MismatchKind::kStrides, 0, 1, 6);
}

TEST(the_stride_of_a_single_element_does_not_matter) {
  Call call;
  expect(call.check({}, Shape({1, 2}, {-77, 1}).array(memory, kFloat32)), MismatchKind::kNone);
  EXPECT_EQ(call.strides[0], 2);
}

TEST(a_read_only_array_that_the_model_writes_to) {
  Call call;
  InputSpec spec = spec_of(kFloat32, {fixed(2)});
  const Shape shape({2});
  ArrayView array = shape.array(memory, kFloat32);
  array.writable = false;
  expect(call.check(spec, array), MismatchKind::kNone);
  spec.writable = true;
  expect(call.check(spec, array), MismatchKind::kReadOnly);
}

// -- the order of the checks ----------------------------------------------------------------------

TEST(the_first_of_several_things_that_are_wrong_is_reported) {
  const char* bytes = reinterpret_cast<const char*>(memory);
  InputSpec spec = spec_of(kFloat32, {fixed(2), symbol(0), symbol(0)});
  spec.writable = true;
  // Wrong in every respect; then one after the other is put right.
  Shape shape({3, 9, 4}, {100, 50, 2});
  ArrayView array = shape.array(nullptr, kFloat64);
  array.writable = false;
  array.rank = 2;
  const auto kind = [&] {
    Call call;
    call.ranges[0] = {0, 8};
    return call.check(spec, array).kind;
  };
  EXPECT_EQ(kind(), MismatchKind::kDType);
  array.dtype = kFloat32;
  array.itemsize = array.unit = 4;
  EXPECT_EQ(kind(), MismatchKind::kRank);
  array.rank = 3;
  EXPECT_EQ(kind(), MismatchKind::kSize);
  shape.sizes[0] = 2;
  EXPECT_EQ(kind(), MismatchKind::kRange);
  shape.sizes[1] = 5;
  EXPECT_EQ(kind(), MismatchKind::kConflict);
  shape.sizes[2] = 5;
  EXPECT_EQ(kind(), MismatchKind::kNull);
  array.data = const_cast<char*>(bytes + 1);
  EXPECT_EQ(kind(), MismatchKind::kAlignment);
  array.data = memory;
  EXPECT_EQ(kind(), MismatchKind::kStrides);
  shape.strides = {25, 5, 1};
  EXPECT_EQ(kind(), MismatchKind::kReadOnly);
  array.writable = true;
  EXPECT_EQ(kind(), MismatchKind::kNone);
}

TEST(kinds_are_numbered_in_the_order_of_the_checks) {
  const MismatchKind order[] = {
      MismatchKind::kNone,
      MismatchKind::kUnreadable,
      MismatchKind::kDevice,
      MismatchKind::kDType,
      MismatchKind::kRank,
      MismatchKind::kSize,
      MismatchKind::kConflict,
      MismatchKind::kRange,
      MismatchKind::kNull,
      MismatchKind::kAlignment,
      MismatchKind::kByteOrder,
      MismatchKind::kStrides,
      MismatchKind::kReadOnly,
  };
  int number = 0;
  for (MismatchKind kind : order) {
    EXPECT_EQ(static_cast<int>(kind), number++);
  }
}

// -- symbols --------------------------------------------------------------------------------------

TEST(the_first_input_binds_a_symbol_and_later_ones_must_agree) {
  Call call;
  const InputSpec first = spec_of(kFloat32, {symbol(0), symbol(1)});
  const InputSpec second = spec_of(kFloat32, {symbol(1, 2), symbol(0, 1, 1)});
  expect(call.check(first, Shape({3, 4}).array(memory, kFloat32)), MismatchKind::kNone);
  EXPECT_EQ(call.symbols[0], 3);
  EXPECT_EQ(call.symbols[1], 4);
  expect(call.check(second, Shape({8, 4}).array(memory, kFloat32)), MismatchKind::kNone);
  expect(
      call.check(second, Shape({8, 5}).array(memory, kFloat32)), MismatchKind::kConflict, 1, 4, 5);
  expect(
      call.check(second, Shape({4, 4}).array(memory, kFloat32)), MismatchKind::kConflict, 0, 8, 4);
}

TEST(two_dimensions_of_one_input_share_a_symbol) {
  Call call;
  expect(
      call.check(spec_of(kFloat32, {symbol(0), symbol(0)}), Shape({3, 2}).array(memory, kFloat32)),
      MismatchKind::kConflict,
      1,
      3,
      2);
}

TEST(an_expression_may_shrink_with_its_symbol) {
  Call call;
  const InputSpec spec = spec_of(kFloat32, {symbol(0, -1, 10)});
  expect(call.check(spec, Shape({7}).array(memory, kFloat32)), MismatchKind::kNone);
  EXPECT_EQ(call.symbols[0], 3);
  call.symbols[0] = kUnbound;
  expect(call.check(spec, Shape({11}).array(memory, kFloat32)), MismatchKind::kSize, 0, 0, 11);
}

TEST(sizes_are_evaluated_from_symbols) {
  const int64_t symbols[] = {7, 5};
  EXPECT_EQ(evaluate(symbol(1, 3, -2), symbols), 13);
  EXPECT_EQ(evaluate(fixed(-4), symbols), -4);
}

// -- empty arrays ---------------------------------------------------------------------------------

TEST(an_empty_array_may_have_any_address_and_strides) {
  Call call;
  const InputSpec spec = spec_of(kFloat32, {symbol(0), fixed(3)});
  expect(call.check(spec, Shape({0, 3}, {-5, 9}).array(nullptr, kFloat32)), MismatchKind::kNone);
  EXPECT_EQ(call.symbols[0], 0);
  EXPECT_EQ(call.strides[0], 3);  // those that it must have all the same
  EXPECT_EQ(call.strides[1], 1);
  expect(call.check(spec, Shape({0, 4}).array(nullptr, kFloat32)), MismatchKind::kSize, 1, 3, 4);
}

TEST(an_empty_array_may_be_too_large) {
  Call call;
  expect(
      call.check({}, Shape({INT64_MAX, INT64_MAX, 0}).array(nullptr, kFloat32)),
      MismatchKind::kNone);
}

TEST(an_empty_array_that_is_written_to_must_be_writable) {
  Call call;
  InputSpec spec = spec_of(kFloat32, {fixed(0)});
  spec.writable = true;
  const Shape shape({0});
  ArrayView array = shape.array(nullptr, kFloat32);
  array.writable = false;
  expect(call.check(spec, array), MismatchKind::kReadOnly);
}

// -- other layouts --------------------------------------------------------------------------------

TEST(channels_last_is_an_order) {
  Call call;
  InputSpec spec = spec_of(kFloat32, {symbol(0), fixed(2), fixed(3), fixed(4)});
  spec.order = {1, 3, 2, 0};  // channels innermost, then width and height
  const Shape last({2, 2, 3, 4}, {24, 1, 8, 2});
  expect(call.check(spec, last.array(memory, kFloat32)), MismatchKind::kNone);
  EXPECT_EQ(call.strides[0], 24);
  EXPECT_EQ(call.strides[1], 1);
  EXPECT_EQ(call.strides[2], 8);
  EXPECT_EQ(call.strides[3], 2);
  expect(
      call.check(spec, Shape({2, 2, 3, 4}).array(memory, kFloat32)),
      MismatchKind::kStrides,
      1,
      1,
      48);
}

TEST(exact_strides_go_before_an_order) {
  Call call;
  InputSpec spec = spec_of(kFloat32, {fixed(2), fixed(3)});
  spec.order = {0, 1};
  spec.strides = {8, 2};
  expect(call.check(spec, Shape({2, 3}, {8, 2}).array(memory, kFloat32)), MismatchKind::kNone);
  expect(
      call.check(spec, Shape({2, 3}, {1, 2}).array(memory, kFloat32)),
      MismatchKind::kStrides,
      0,
      8,
      4);
}

TEST(a_model_may_want_a_stride_of_zero) {
  Call call;
  InputSpec spec = spec_of(kFloat32, {fixed(2), fixed(3)});
  spec.strides = {0, 1};
  expect(call.check(spec, Shape({2, 3}, {0, 1}).array(memory, kFloat32)), MismatchKind::kNone);
}

// -- devices --------------------------------------------------------------------------------------

TEST(an_array_is_placed_on_its_device_or_can_go_anywhere) {
  InputSpec spec;
  spec.device = {kDLCUDA, 1};
  const Shape shape({1});
  ArrayView array = shape.array(memory, kFloat32);
  EXPECT(!placed(spec, array));
  array.anywhere = true;
  EXPECT(placed(spec, array));
  array.anywhere = false;
  array.device = {kDLCUDA, 0};
  EXPECT(!placed(spec, array));
  array.device = {kDLCUDA, 1};
  EXPECT(placed(spec, array));
}

}  // namespace aoti
