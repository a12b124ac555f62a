#include <aoti/core/tensor.h>

#include "arrays.h"
#include "expect.h"

#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

namespace aoti {

namespace {

// What `element` bytes at each index of a tensor are, in C order.
std::vector<char> read(const DLTensor& view) {
  const int64_t itemsize = itemsize_of(view.dtype);
  std::vector<char> bytes;
  for (int64_t i = 0; i < count_elements(view); ++i) {
    int64_t left = i, at = 0;
    for (int dim = view.ndim; dim-- > 0;) {
      at += left % view.shape[dim] * view.strides[dim];
      left /= view.shape[dim];
    }
    const char* element = static_cast<const char*>(view.data) + view.byte_offset + at * itemsize;
    bytes.insert(bytes.end(), element, element + itemsize);
  }
  return bytes;
}

std::vector<char> counted(std::size_t bytes) {
  std::vector<char> memory(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    memory[i] = static_cast<char>(i * 7 + i / 256);
  }
  return memory;
}

bool cannot_be_allocated(const std::vector<int64_t>& sizes, const int64_t* strides = nullptr) {
  try {
    Tensor::allocate(kFloat32, static_cast<int>(sizes.size()), sizes.data(), strides);
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

bool equal(const int64_t* got, const std::vector<int64_t>& wanted) {
  return std::equal(wanted.begin(), wanted.end(), got);
}

}  // namespace

// -- ownership ------------------------------------------------------------------------------------

TEST(the_last_copy_gives_the_owner_back_once) {
  Owner owner;
  float value = 3;
  {
    Tensor tensor = Tensor::over(Shape({}).over(&value, kFloat32), &owner, Owner::release);
    {
      const Tensor copy = tensor;
      EXPECT_EQ(copy.data(), tensor.data());
      tensor.reset();
      EXPECT(!tensor.defined());
      EXPECT_EQ(owner.released, 0);
    }
    EXPECT_EQ(owner.released, 1);
    tensor.reset();
  }
  EXPECT_EQ(owner.released, 1);
}

TEST(a_moved_tensor_is_undefined_and_gives_nothing_back) {
  Owner owner;
  Tensor tensor = Tensor::over(Shape({}).over(nullptr, kFloat32), &owner, Owner::release);
  Tensor moved = std::move(tensor);
  EXPECT(moved.defined());
  tensor.reset();
  EXPECT_EQ(owner.released, 0);
  tensor = std::move(moved);
  EXPECT_EQ(owner.released, 0);
  tensor = Tensor();
  EXPECT_EQ(owner.released, 1);
}

TEST(assignment_gives_back_what_was_there_before) {
  Owner first, second;
  Tensor tensor = Tensor::over(Shape({}).over(nullptr, kFloat32), &first, Owner::release);
  tensor = Tensor::over(Shape({}).over(nullptr, kFloat32), &second, Owner::release);
  EXPECT_EQ(first.released, 1);
  const Tensor& itself = tensor;
  tensor = itself;
  EXPECT(tensor.defined());
  EXPECT_EQ(second.released, 0);
}

TEST(copies_on_many_threads_give_the_owner_back_once) {
  Owner owner;
  std::vector<float> memory(16, 1);
  Tensor tensor = Tensor::over(Shape({16}).over(memory.data(), kFloat32), &owner, Owner::release);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([mine = tensor] {
      for (int round = 0; round < 1000; ++round) {
        Tensor copy = mine;
        Tensor other = std::move(copy);
        EXPECT_EQ(other.numel(), 16);
      }
    });
  }
  tensor.reset();
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(owner.released, 1);
}

TEST(memory_written_by_one_user_is_freed_by_another_thread) {
  const int64_t size = 4;
  Tensor tensor = Tensor::allocate(kFloat32, 1, &size, nullptr);
  std::thread other([mine = tensor]() mutable {
    static_cast<float*>(mine.data())[0] = 1;
    mine.reset();
  });
  tensor.reset();  // one of the two frees it, after the other is done with it
  other.join();
}

TEST(only_its_own_release_finds_the_owner) {
  Owner owner;
  const Tensor tensor = Tensor::over(Shape({}).over(nullptr, kFloat32), &owner, Owner::release);
  EXPECT_EQ(tensor.owner_if(Owner::release), static_cast<void*>(&owner));
  EXPECT_EQ(tensor.owner_if([](void*) {}), static_cast<void*>(nullptr));
}

TEST(over_copies_the_sizes_and_owned_does_not) {
  Shape shape({2, 3});
  const Tensor over = Tensor::over(shape.over(nullptr, kFloat32), nullptr, nullptr);
  const Tensor owned = Tensor::owned(shape.over(nullptr, kFloat32), nullptr, nullptr);
  shape.sizes[0] = 7;
  shape.strides[0] = 9;
  EXPECT_EQ(over.sizes()[0], 2);
  EXPECT_EQ(over.strides()[0], 3);
  EXPECT_EQ(owned.sizes(), shape.sizes.data());
  EXPECT_EQ(owned.strides(), shape.strides.data());
}

TEST(a_tensor_reports_what_it_was_made_of) {
  double memory[6] = {};
  const Shape shape({2, 3});
  const Tensor tensor = Tensor::over(shape.over(memory, kFloat64), nullptr, nullptr);
  EXPECT_EQ(tensor.data(), static_cast<void*>(memory));
  EXPECT_EQ(tensor.dtype(), kFloat64);
  EXPECT_EQ(tensor.rank(), 2);
  EXPECT_EQ(tensor.numel(), 6);
  EXPECT_EQ(tensor.nbytes(), 48);
  EXPECT(tensor.is_cpu());
  ArrayView array;
  describe(tensor, false, array);
  EXPECT_EQ(array.data, static_cast<void*>(memory));
  EXPECT_EQ(array.rank, 2);
  EXPECT_EQ(array.unit, 8);
  EXPECT_EQ(array.itemsize, 8);
  EXPECT(!array.writable);
  EXPECT(!array.anywhere);
}

// -- new memory -----------------------------------------------------------------------------------

TEST(new_memory_is_aligned_and_in_c_order) {
  for (int64_t size : {1, 3, 1000}) {
    const int64_t sizes[] = {size, 3};
    const Tensor tensor = Tensor::allocate(kUInt8, 2, sizes, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data()) % 64, 0);
    EXPECT(equal(tensor.strides(), {3, 1}));
    std::memset(tensor.data(), 1, static_cast<std::size_t>(tensor.nbytes()));
  }
}

TEST(strides_with_gaps_get_memory_for_the_gaps) {
  const int64_t sizes[] = {2, 3}, strides[] = {10, 2};
  const Tensor tensor = Tensor::allocate(kInt32, 2, sizes, strides);
  static_cast<int32_t*>(tensor.data())[14] = 1;  // the last element
  EXPECT(equal(tensor.strides(), {10, 2}));
}

TEST(an_empty_tensor_has_no_memory) {
  const int64_t sizes[] = {2, 0, 3};
  const Tensor tensor = Tensor::allocate(kFloat32, 3, sizes, nullptr);
  EXPECT_EQ(tensor.data(), static_cast<void*>(nullptr));
  EXPECT_EQ(tensor.numel(), 0);
  EXPECT(equal(tensor.strides(), {3, 3, 1}));
  EXPECT(is_contiguous(tensor.view()));
}

TEST(a_scalar_has_one_element) {
  const Tensor tensor = Tensor::allocate(kFloat32, 0, nullptr, nullptr);
  *static_cast<float*>(tensor.data()) = 1;
  EXPECT_EQ(tensor.numel(), 1);
  EXPECT_EQ(tensor.nbytes(), 4);
  EXPECT(is_contiguous(tensor.view()));
}

TEST(the_highest_rank_is_allocated_and_copied) {
  std::vector<int64_t> sizes(kMaxRank, 1);
  sizes[5] = 2;
  sizes[40] = 3;
  const Tensor tensor = Tensor::allocate(kInt32, kMaxRank, sizes.data(), nullptr);
  EXPECT_EQ(tensor.numel(), 6);
  EXPECT_EQ(tensor.strides()[5], 3);
  std::iota(static_cast<int32_t*>(tensor.data()), static_cast<int32_t*>(tensor.data()) + 6, 0);
  Tensor copy;
  REQUIRE_OK(clone(tensor.view(), copy));
  EXPECT_EQ(static_cast<int32_t*>(copy.data())[5], 5);
}

TEST(every_dimension_of_the_highest_rank_may_have_two_elements) {
  // All but the innermost 12 have a stride of 0 in the source: 4096 elements would be 2**64.
  std::vector<int64_t> sizes(kMaxRank, 1), strides(kMaxRank, 0);
  for (int i = 0; i < 12; ++i) {
    sizes[5 * i] = 2;
    strides[5 * i] = int64_t{1} << i;  // the first dimension is the innermost one
  }
  std::vector<int16_t> memory(4096);
  std::iota(memory.begin(), memory.end(), 0);
  const Shape shape(sizes, strides);
  const DLTensor view = shape.over(memory.data(), make_dtype(kDLInt, 16));
  Tensor copy;
  REQUIRE_OK(clone(view, copy));
  EXPECT(read(view) == read(copy.view()));
  EXPECT_EQ(static_cast<int16_t*>(copy.data())[1], 2048);
}

TEST(extents_that_overflow_are_refused) {
  const int64_t big = int64_t{1} << 40;
  EXPECT(cannot_be_allocated({big, big}));
  EXPECT(cannot_be_allocated({INT64_MAX, INT64_MAX, INT64_MAX}));
  EXPECT(cannot_be_allocated({INT64_MAX}));             // elements would fit, bytes do not
  EXPECT(cannot_be_allocated({(INT64_MAX >> 2) + 1}));  // 2**63 bytes
  const int64_t strides[] = {INT64_MAX, INT64_MAX};
  EXPECT(cannot_be_allocated({3, 3}, strides));
  EXPECT(cannot_be_allocated({-2, 3}));
  const int64_t negative[] = {-3, 1};
  EXPECT(cannot_be_allocated({2, 3}, negative));
}

TEST(an_empty_tensor_may_have_sizes_that_overflow) {
  const int64_t sizes[] = {INT64_MAX, INT64_MAX, 0};
  const Tensor tensor = Tensor::allocate(kFloat32, 3, sizes, nullptr);
  EXPECT_EQ(tensor.data(), static_cast<void*>(nullptr));
  EXPECT_EQ(tensor.numel(), 0);
}

#if !AOTI_SANITIZED
TEST(memory_that_cannot_be_had_is_a_status) {
  const Shape shape({int64_t{1} << 59}, {0});
  const char value = 1;
  Tensor copy;
  const Status status = clone(shape.over(&value, kUInt8), copy);
  EXPECT_EQ(status.code, StatusCode::kNoMemory);
  EXPECT(!copy.defined());
}
#endif

// -- layouts --------------------------------------------------------------------------------------

TEST(contiguous_means_c_order) {
  EXPECT(is_contiguous(Shape({2, 3}).over(nullptr, kFloat32)));
  EXPECT(!is_contiguous(Shape({2, 3}, {1, 2}).over(nullptr, kFloat32)));
  EXPECT(!is_contiguous(Shape({2, 3}, {4, 1}).over(nullptr, kFloat32)));
  EXPECT(!is_contiguous(Shape({2}, {0}).over(nullptr, kFloat32)));
  EXPECT(is_contiguous(Shape({1, 3}, {77, 1}).over(nullptr, kFloat32)));  // no step to take
  EXPECT(is_contiguous(Shape({0, 3}, {5, 5}).over(nullptr, kFloat32)));
  EXPECT(is_contiguous(Shape({3, 0}, {5, 5}).over(nullptr, kFloat32)));
}

TEST(dense_means_that_every_address_is_an_element) {
  EXPECT(is_dense(Shape({2, 3}, {1, 2}).over(nullptr, kFloat32)));
  EXPECT(is_dense(Shape({2, 3, 4, 5}, {60, 1, 15, 3}).over(nullptr, kFloat32)));  // channels last
  EXPECT(is_dense(Shape({2, 1, 3}, {1, 99, 2}).over(nullptr, kFloat32)));
  EXPECT(!is_dense(Shape({2, 3}, {4, 1}).over(nullptr, kFloat32)));  // a gap
  EXPECT(!is_dense(Shape({2, 3}, {1, 1}).over(nullptr, kFloat32)));  // elements overlap
  EXPECT(!is_dense(Shape({2, 3}, {0, 1}).over(nullptr, kFloat32)));  // and here, too
  EXPECT(!is_dense(Shape({3}, {-1}).over(nullptr, kFloat32)));
  EXPECT(!is_dense(Shape({3}, {2}).over(nullptr, kFloat32)));
}

// -- copies ---------------------------------------------------------------------------------------

TEST(copies_have_the_same_elements_for_every_itemsize_and_layout) {
  const std::vector<Shape> layouts = {
      Shape({3, 4, 5}),
      Shape({3, 4, 5}, {1, 3, 12}),   // reversed
      Shape({3, 4, 5}, {5, 15, 1}),   // two dimensions joined
      Shape({3, 4, 5}, {40, 10, 2}),  // with gaps
      Shape({3, 4, 5}, {30, 5, 1}),   // rows that are contiguous, with a gap after four
  };
  for (int bits : {8, 16, 24, 32, 64, 96, 128}) {
    const DType dtype = make_dtype(kDLFloat, bits);
    const std::vector<char> memory = counted(static_cast<std::size_t>(2000 * bits / 8));
    for (const Shape& from : layouts) {
      for (const Shape& to : layouts) {
        const DLTensor source = from.over(memory.data(), dtype);
        Tensor copy;
        REQUIRE_OK(copy_strided(source, to.strides, copy));
        EXPECT(equal(copy.strides(), to.strides));
        EXPECT(read(source) == read(copy.view()));
      }
    }
  }
}

TEST(a_copy_leaves_the_gaps_of_its_target_alone) {
  const int32_t from[] = {1, 2, 3, 4};
  int32_t to[6] = {0, 0, 9, 0, 0, 9};
  copy_elements(Shape({2, 2}, {3, 1}).over(to, kInt32), Shape({2, 2}).over(from, kInt32));
  const int32_t wanted[] = {1, 2, 9, 3, 4, 9};
  EXPECT_EQ(std::memcmp(to, wanted, sizeof to), 0);
}

TEST(a_copy_reads_strides_of_zero_and_below) {
  const int32_t from[] = {1, 2, 3};
  int32_t to[6] = {};
  const Shape target({2, 3});
  copy_elements(target.over(to, kInt32), Shape({2, 3}, {0, -1}).over(from + 2, kInt32));
  const int32_t wanted[] = {3, 2, 1, 3, 2, 1};
  EXPECT_EQ(std::memcmp(to, wanted, sizeof to), 0);
}

TEST(a_copy_writes_to_negative_strides) {
  const int32_t from[] = {1, 2, 3};
  int32_t to[3] = {};
  copy_elements(Shape({3}, {-1}).over(to + 2, kInt32), Shape({3}).over(from, kInt32));
  EXPECT_EQ(to[0], 3);
  EXPECT_EQ(to[2], 1);
}

TEST(a_copy_starts_at_the_byte_offsets) {
  const int32_t from[] = {1, 2, 3};
  int32_t to[3] = {};
  const Shape shape({2});
  DLTensor source = shape.over(from, kInt32), target = shape.over(to, kInt32);
  source.byte_offset = 4;
  target.byte_offset = 4;
  copy_elements(target, source);
  EXPECT_EQ(to[0], 0);
  EXPECT_EQ(to[1], 2);
  EXPECT_EQ(to[2], 3);
}

TEST(a_transposition_of_any_size_has_every_element_in_its_place) {
  for (const int64_t rows : {1, 2, 31, 32, 33, 100}) {
    for (const int64_t columns : {1, 3, 32, 65}) {
      std::vector<float> from(static_cast<std::size_t>(2 * rows * columns));
      std::iota(from.begin(), from.end(), 0.0f);
      const Shape shape({2, rows, columns}, {rows * columns, 1, rows});
      Tensor copy;
      REQUIRE_OK(clone(shape.over(from.data(), kFloat32), copy));
      const auto* made = static_cast<const float*>(copy.data());
      for (int64_t i = 0; i < 2 * rows * columns; ++i) {
        const int64_t batch = i / (rows * columns), row = i / columns % rows, column = i % columns;
        EXPECT_EQ(
            made[i], from[static_cast<std::size_t>(batch * rows * columns + column * rows + row)]);
      }
    }
  }
}

TEST(contiguous_tensors_that_overlap_are_copied_as_if_they_did_not) {
  for (int shift : {0, 1, 3}) {
    for (bool forwards : {false, true}) {
      std::vector<int32_t> memory(16);
      std::iota(memory.begin(), memory.end(), 0);
      const Shape shape({3, 4});
      copy_elements(
          shape.over(memory.data() + (forwards ? shift : 0), kInt32),
          shape.over(memory.data() + (forwards ? 0 : shift), kInt32));
      for (int i = 0; i < 12; ++i) {
        EXPECT_EQ(memory[i + (forwards ? shift : 0)], i + (forwards ? 0 : shift));
      }
    }
  }
}

TEST(elements_may_be_aligned_to_less_than_their_size) {
  const std::vector<char> memory = counted(200);
  const Shape shape({3, 4}, {1, 3});
  const DLTensor source = shape.over(memory.data() + 1, kFloat64);
  Tensor copy;
  REQUIRE_OK(clone(source, copy));
  EXPECT(read(source) == read(copy.view()));
}

TEST(an_empty_copy_touches_no_memory) {
  const Shape shape({0, 4});
  copy_elements(shape.over(nullptr, kInt32), shape.over(nullptr, kInt32));
  Tensor copy;
  REQUIRE_OK(clone(shape.over(nullptr, kInt32), copy));
  EXPECT(equal(copy.sizes(), {0, 4}));
  REQUIRE_OK(clone_preserving(shape.over(nullptr, kInt32), copy));
}

TEST(a_scalar_is_copied) {
  const double value = 2.5;
  Tensor copy;
  REQUIRE_OK(clone(Shape({}).over(&value, kFloat64), copy));
  EXPECT_EQ(*static_cast<double*>(copy.data()), 2.5);
  REQUIRE_OK(copy_strided(Shape({}).over(&value, kFloat64), {}, copy));
  EXPECT_EQ(*static_cast<double*>(copy.data()), 2.5);
}

TEST(clone_is_in_c_order_and_clone_preserving_keeps_dense_strides) {
  const std::vector<char> memory = counted(400);
  const Shape dense({2, 3}, {1, 2}), gaps({2, 3}, {2, 5});
  Tensor copy;
  REQUIRE_OK(clone(dense.over(memory.data(), kInt32), copy));
  EXPECT(equal(copy.strides(), {3, 1}));
  REQUIRE_OK(clone_preserving(dense.over(memory.data(), kInt32), copy));
  EXPECT(equal(copy.strides(), {1, 2}));
  EXPECT(read(dense.over(memory.data(), kInt32)) == read(copy.view()));
  REQUIRE_OK(clone_preserving(gaps.over(memory.data(), kInt32), copy));
  EXPECT(equal(copy.strides(), {3, 1}));
  EXPECT(read(gaps.over(memory.data(), kInt32)) == read(copy.view()));
}

TEST(a_copy_that_fails_leaves_its_result_alone) {
  const int32_t value = 1;
  Tensor copy = Tensor::allocate(kInt32, 0, nullptr, nullptr);
  const void* before = copy.data();
  const Shape huge({int64_t{1} << 40, int64_t{1} << 40}, {0, 0});
  EXPECT_EQ(clone(huge.over(&value, kInt32), copy).code, StatusCode::kNoMemory);
  EXPECT_EQ(copy.data(), before);
}

}  // namespace aoti
