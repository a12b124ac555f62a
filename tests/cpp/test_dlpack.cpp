#include <aoti/core/dlpack.h>

#include "arrays.h"
#include "expect.h"

#include <cstdint>
#include <thread>
#include <vector>

namespace aoti {

namespace {

// A managed tensor of another library, which counts the calls of its deleter.
template <class Managed>
struct Foreign {
  Managed managed{};
  Shape shape;
  std::vector<float> memory = std::vector<float>(16);
  int deleted = 0;

  explicit Foreign(Shape given) : shape(std::move(given)) {
    managed.dl_tensor = shape.over(memory.data(), kFloat32);
    managed.manager_ctx = this;
    managed.deleter = [](Managed* self) { ++static_cast<Foreign*>(self->manager_ctx)->deleted; };
  }
};

using Legacy = DLManagedTensor;
using Versioned = DLManagedTensorVersioned;

template <class Managed>
void expect_refused(Foreign<Managed>& foreign) {
  Tensor tensor;
  const Status status = from_dlpack(&foreign.managed, tensor);
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT(!status.message.empty());
  EXPECT(!tensor.defined());
  EXPECT_EQ(foreign.deleted, 0);  // still the caller's
}

}  // namespace

// -- in -------------------------------------------------------------------------------------------

template <class Managed>
void take_in() {
  Foreign<Managed> foreign(Shape({2, 3}, {1, 2}));
  {
    Tensor tensor;
    REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
    EXPECT_EQ(tensor.data(), static_cast<void*>(foreign.memory.data()));
    EXPECT_EQ(tensor.dtype(), kFloat32);
    EXPECT_EQ(tensor.sizes()[1], 3);
    EXPECT_EQ(tensor.strides()[1], 2);
    foreign.shape.sizes[1] = 0;  // its numbers were copied
    EXPECT_EQ(tensor.sizes()[1], 3);
    std::thread([mine = std::move(tensor)] { EXPECT(mine.defined()); }).join();
    EXPECT_EQ(foreign.deleted, 1);
  }
  EXPECT_EQ(foreign.deleted, 1);
}

TEST(a_tensor_of_another_library_is_deleted_once_with_its_last_user) {
  take_in<Legacy>();
  take_in<Versioned>();
}

TEST(a_deleter_may_be_null) {
  Foreign<Legacy> legacy(Shape({2}));
  Foreign<Versioned> versioned(Shape({2}));
  legacy.managed.deleter = nullptr;
  versioned.managed.deleter = nullptr;
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&legacy.managed, tensor));
  REQUIRE_OK(from_dlpack(&versioned.managed, tensor));
  tensor.reset();
  discard(&legacy.managed);
  discard(&versioned.managed);
}

TEST(no_strides_mean_c_order) {
  Foreign<Legacy> foreign(Shape({2, 0, 3}));
  foreign.managed.dl_tensor.strides = nullptr;
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
  EXPECT_EQ(tensor.strides()[0], 3);
  EXPECT_EQ(tensor.strides()[1], 3);
  EXPECT_EQ(tensor.strides()[2], 1);
}

TEST(a_scalar_needs_neither_sizes_nor_strides) {
  Foreign<Versioned> foreign(Shape({}));
  foreign.managed.dl_tensor.shape = nullptr;
  foreign.managed.dl_tensor.strides = nullptr;
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
  EXPECT_EQ(tensor.rank(), 0);
  EXPECT_EQ(tensor.numel(), 1);
}

TEST(a_byte_offset_is_added_to_the_address) {
  Foreign<Legacy> foreign(Shape({2}));
  foreign.managed.dl_tensor.byte_offset = 8;
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
  EXPECT_EQ(tensor.data(), static_cast<void*>(foreign.memory.data() + 2));
  EXPECT_EQ(tensor.view().byte_offset, 0);
  Foreign<Legacy> empty(Shape({0}));
  empty.managed.dl_tensor.data = nullptr;
  empty.managed.dl_tensor.byte_offset = 8;
  REQUIRE_OK(from_dlpack(&empty.managed, tensor));
  EXPECT_EQ(tensor.data(), static_cast<void*>(nullptr));
}

TEST(pinned_memory_lies_on_the_cpu) {
  for (DLDeviceType type : {kDLCUDAHost, kDLROCMHost}) {
    Foreign<Legacy> foreign(Shape({2}));
    foreign.managed.dl_tensor.device = {type, 1};
    Tensor tensor;
    REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
    EXPECT(same(tensor.device(), kCpu));
  }
  Foreign<Legacy> foreign(Shape({2}));
  foreign.managed.dl_tensor.device = {kDLCUDA, 1};
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
  EXPECT(same(tensor.device(), {kDLCUDA, 1}));
}

TEST(negative_strides_are_refused_where_there_are_steps_to_take) {
  Foreign<Versioned> foreign(Shape({2, 3}, {3, -1}));
  expect_refused(foreign);
  Foreign<Versioned> single(Shape({1, 0}, {-3, -1}));
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&single.managed, tensor));
  EXPECT_EQ(tensor.strides()[0], 0);
  EXPECT_EQ(tensor.strides()[1], 0);
}

template <class Change>
void expect_fault(Shape shape, MismatchKind kind, Change change) {
  Foreign<Versioned> foreign(std::move(shape));
  change(foreign.managed.dl_tensor);
  expect_refused(foreign);
  ArrayView array;
  EXPECT_EQ(describe(foreign.managed.dl_tensor, true, array), kind);
}

TEST(what_makes_no_sense_is_refused) {
  const auto as_it_is = [](DLTensor&) {};
  constexpr MismatchKind kKind = MismatchKind::kUnreadable;
  expect_fault(Shape({2, -1}), kKind, as_it_is);
  expect_fault(Shape({0, -1}), kKind, as_it_is);
  for (int rank : {INT32_MIN, -1, kMaxRank + 1, INT32_MAX}) {
    expect_fault(Shape({2}), kKind, [&](DLTensor& tensor) { tensor.ndim = rank; });
  }
  expect_fault(Shape({2}), kKind, [](DLTensor& tensor) { tensor.shape = nullptr; });
  for (std::vector<int64_t> sizes :
       {std::vector<int64_t>{INT64_MAX, INT64_MAX},
        std::vector<int64_t>{int64_t{1} << 31, int64_t{1} << 31},
        std::vector<int64_t>{INT64_MAX / 4 + 1}}) {
    expect_fault(Shape(sizes, std::vector<int64_t>(sizes.size(), 0)), kKind, as_it_is);
  }
  for (int64_t stride : {INT64_MAX, INT64_MIN, int64_t{1} << 61, -(int64_t{1} << 60)}) {
    expect_fault(Shape({3, 2}, {stride, 1}), kKind, as_it_is);
  }
  expect_fault(Shape({2}), kKind, [](DLTensor& tensor) { tensor.byte_offset = UINT64_MAX; });
  expect_fault(Shape({2}), kKind, [](DLTensor& tensor) {
    tensor.data = reinterpret_cast<void*>(UINTPTR_MAX - 6);
  });
  expect_fault(Shape({2}), MismatchKind::kNull, [](DLTensor& tensor) { tensor.data = nullptr; });
}

TEST(a_dimension_without_steps_may_have_any_stride) {
  Foreign<Versioned> foreign(Shape({1, 2}, {INT64_MAX, 1}));
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
  Foreign<Versioned> empty(Shape({2, 0}, {INT64_MAX, 1}));
  empty.managed.dl_tensor.data = nullptr;
  REQUIRE_OK(from_dlpack(&empty.managed, tensor));
}

TEST(dtypes_with_lanes_or_parts_of_bytes_are_refused) {
  for (DLDataType type :
       {DLDataType{kDLFloat, 32, 4},
        DLDataType{kDLInt, 4, 1},
        DLDataType{kDLFloat, 0, 1},
        DLDataType{kDLFloat, 32, 0}}) {
    Foreign<Legacy> foreign(Shape({2}));
    foreign.managed.dl_tensor.dtype = type;
    expect_refused(foreign);
    ArrayView array;
    EXPECT_EQ(describe(foreign.managed.dl_tensor, true, array), MismatchKind::kDType);
  }
}

TEST(an_empty_tensor_may_have_sizes_that_overflow) {
  Foreign<Legacy> foreign(Shape({INT64_MAX, INT64_MAX, 0}));
  foreign.managed.dl_tensor.strides = nullptr;
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
  EXPECT_EQ(tensor.numel(), 0);
}

TEST(the_highest_rank_is_taken) {
  Foreign<Legacy> foreign(Shape(std::vector<int64_t>(kMaxRank, 1)));
  Tensor tensor;
  REQUIRE_OK(from_dlpack(&foreign.managed, tensor));
  EXPECT_EQ(tensor.rank(), kMaxRank);
}

TEST(a_tensor_that_nobody_took_is_discarded_once) {
  Foreign<Legacy> legacy(Shape({2}));
  Foreign<Versioned> versioned(Shape({2}));
  discard(&legacy.managed);
  discard(&versioned.managed);
  EXPECT_EQ(legacy.deleted, 1);
  EXPECT_EQ(versioned.deleted, 1);
  discard<Legacy>(nullptr);
}

// -- descriptions ---------------------------------------------------------------------------------

TEST(a_description_owns_and_copies_nothing) {
  Foreign<Legacy> foreign(Shape({2, 3}));
  ArrayView array;
  EXPECT_EQ(describe(foreign.managed.dl_tensor, false, array), MismatchKind::kNone);
  EXPECT_EQ(array.sizes, foreign.shape.sizes.data());
  EXPECT_EQ(array.strides, foreign.shape.strides.data());
  EXPECT_EQ(array.unit, 4);
  EXPECT(!array.writable);
  EXPECT_EQ(foreign.deleted, 0);
}

TEST(what_cannot_be_described_is_unreadable) {
  Foreign<Legacy> foreign(Shape({2, 3}));
  DLTensor& view = foreign.managed.dl_tensor;
  ArrayView array;
  const auto kind = [&] { return describe(view, true, array); };
  view.strides = nullptr;
  EXPECT_EQ(kind(), MismatchKind::kUnreadable);
  view.strides = foreign.shape.strides.data();
  view.shape = nullptr;
  EXPECT_EQ(kind(), MismatchKind::kUnreadable);
  view.shape = foreign.shape.sizes.data();
  view.ndim = kMaxRank + 1;
  EXPECT_EQ(kind(), MismatchKind::kUnreadable);
  view.ndim = -1;
  EXPECT_EQ(kind(), MismatchKind::kUnreadable);
  view.ndim = 0;
  view.shape = view.strides = nullptr;
  EXPECT_EQ(kind(), MismatchKind::kNone);
}

// -- out ------------------------------------------------------------------------------------------

template <class Managed>
void hand_out(uint64_t flags) {
  Owner owner;
  float memory[6] = {};
  const Shape shape({2, 3}, {1, 2});
  Tensor tensor = Tensor::over(shape.over(memory, kFloat32), &owner, Owner::release);
  Managed* managed = nullptr;
  REQUIRE_OK(to_dlpack(tensor, flags, managed));
  tensor.reset();
  EXPECT_EQ(owner.released, 0);
  EXPECT_EQ(managed->dl_tensor.data, static_cast<void*>(memory));
  EXPECT_EQ(managed->dl_tensor.shape[1], 3);
  EXPECT_EQ(managed->dl_tensor.strides[1], 2);
  if constexpr (std::is_same_v<Managed, Versioned>) {
    EXPECT_EQ(managed->version.major, DLPACK_MAJOR_VERSION);
    EXPECT_EQ(managed->flags, flags);
  }
  std::thread([&] { managed->deleter(managed); }).join();
  EXPECT_EQ(owner.released, 1);
}

TEST(a_tensor_handed_out_keeps_its_memory_until_it_is_deleted) {
  hand_out<Legacy>(0);
  hand_out<Versioned>(DLPACK_FLAG_BITMASK_READ_ONLY);
}

TEST(a_tensor_goes_out_and_comes_back) {
  Owner owner;
  float value = 0;
  Tensor back;
  {
    const Tensor tensor = Tensor::over(Shape({}).over(&value, kFloat32), &owner, Owner::release);
    Versioned* managed = nullptr;
    REQUIRE_OK(to_dlpack(tensor, 0, managed));
    REQUIRE_OK(from_dlpack(managed, back));
  }
  EXPECT_EQ(owner.released, 0);
  back.reset();
  EXPECT_EQ(owner.released, 1);
}

// -- new tensors ----------------------------------------------------------------------------------

TEST(a_prototype_gives_dtype_and_sizes) {
  const Shape shape({2, 3}, {1, 2});
  Tensor tensor;
  REQUIRE_OK(allocate_like(shape.over(nullptr, kFloat64), tensor));
  EXPECT_EQ(tensor.dtype(), kFloat64);
  EXPECT_EQ(tensor.sizes()[0], 2);
  EXPECT_EQ(tensor.strides()[0], 3);
}

TEST(a_prototype_that_aoti_has_no_tensors_for_is_refused) {
  const Shape shape({2});
  Tensor tensor;
  DLTensor view = shape.over(nullptr, kFloat32);
  view.device = {kDLCUDA, 0};
  EXPECT_EQ(allocate_like(view, tensor).code, StatusCode::kExecution);
  view = shape.over(nullptr, make_dtype(kDLInt, 4));
  EXPECT_EQ(allocate_like(view, tensor).code, StatusCode::kExecution);
  view = shape.over(nullptr, kFloat32);
  view.ndim = kMaxRank + 1;
  EXPECT_EQ(allocate_like(view, tensor).code, StatusCode::kExecution);
  view.ndim = -1;
  EXPECT_EQ(allocate_like(view, tensor).code, StatusCode::kExecution);
  const Shape huge({INT64_MAX, INT64_MAX});
  EXPECT_EQ(allocate_like(huge.over(nullptr, kFloat32), tensor).code, StatusCode::kNoMemory);
  EXPECT(!tensor.defined());
}

}  // namespace aoti
