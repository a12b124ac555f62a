#pragma once

// What an AtenTensorHandle of compiled code points to: sizes and strides over a Storage. Every
// handle is a Tensor of its own; views share the storage.

#include <aoti/native/shim/dtype.h>
#include <aoti/native/shim/storage.h>

#include <dlpack/dlpack.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace aoti::native {

using Extents = std::span<const int64_t>;  // sizes or strides, in elements

class Tensor {
 public:
  Tensor() = default;  // not defined: it has no storage

  // A view of a storage from element `offset` on. Throws std::invalid_argument if an extent is
  // negative, or the view does not lie within the storage.
  Tensor(Storage storage, ScalarType dtype, Extents sizes, Extents strides, int64_t offset);

  // New memory, not initialised; as much as the sizes and strides reach.
  static Tensor empty(ScalarType dtype, Extents sizes, Extents strides);
  static Tensor empty(ScalarType dtype, Extents sizes);  // in C order

  // Over memory of somebody else, of which `owner` is released if `release` is not null, also if
  // this throws.
  static Tensor over(
      void* data,
      ScalarType dtype,
      Extents sizes,
      Extents strides,
      int64_t offset,
      void* owner,
      void (*release)(void*));

  Tensor(const Tensor& other);
  Tensor(Tensor&& other) noexcept = default;
  Tensor& operator=(Tensor&& other) noexcept = default;
  Tensor& operator=(const Tensor& other) { return *this = Tensor(other); }

  bool defined() const noexcept { return storage_.defined(); }
  const Storage& storage() const noexcept { return storage_; }
  ScalarType dtype() const noexcept { return dtype_; }
  int64_t itemsize() const noexcept { return itemsize_; }
  int64_t rank() const noexcept { return rank_; }
  int64_t* sizes() const noexcept { return extents(); }
  int64_t* strides() const noexcept { return extents() + rank_; }
  Extents sizes_list() const noexcept { return {sizes(), static_cast<std::size_t>(rank_)}; }
  Extents strides_list() const noexcept { return {strides(), static_cast<std::size_t>(rank_)}; }
  int64_t size(int64_t dim) const;    // negative dims count from the end
  int64_t stride(int64_t dim) const;  // both throw std::out_of_range
  int64_t offset() const noexcept { return offset_; }
  int64_t numel() const noexcept { return numel_; }
  bool is_contiguous() const noexcept;  // in C order

  void* data() const noexcept { return data_; }
  template <class Element>
  Element* as() const noexcept {
    return static_cast<Element*>(data_);
  }

  DLTensor view() const noexcept;  // valid as long as this tensor

  // Set for the copies that a container makes of weights that its user manages: see containers.cpp.
  bool lent = false;

 private:
  static constexpr int64_t kInline = 5;  // dimensions that need no allocation

  int64_t* extents() const noexcept {
    return further_ ? further_.get() : const_cast<int64_t*>(inline_);
  }
  void set_extents(Extents sizes, Extents strides);

  Storage storage_;
  void* data_ = nullptr;
  int64_t offset_ = 0;
  int64_t numel_ = 0;
  int64_t rank_ = 0;
  int64_t itemsize_ = 0;
  ScalarType dtype_ = ScalarType::kFloat32;
  int64_t inline_[2 * kInline] = {};
  std::unique_ptr<int64_t[]> further_;
};

// Throws std::invalid_argument if an int64 cannot hold it.
int64_t checked_product(int64_t one, int64_t other);

// The order of dimensions, innermost first, that suits tensors of these sizes with any of the
// strides: the first ones decide, and the next where those leave it open.
std::vector<std::size_t> order_of_dims(Extents sizes, const std::vector<Extents>& strides);

// Strides in C order; and dense ones in the order of others (ATen's infer_dense_strides in
// aten/src/ATen/ExpandUtils.cpp).
std::vector<int64_t> contiguous_strides(Extents sizes);
std::vector<int64_t> dense_strides(Extents sizes, Extents strides);

// The strides that ATen's clone and empty_like give: those of a tensor itself where it is dense,
// else dense ones in their order.
std::vector<int64_t> preserved_strides(const Tensor& tensor);

// New memory with those strides, and a copy.
Tensor empty_like(const Tensor& tensor);
Tensor clone(const Tensor& tensor);

// Copies elements between tensors of one dtype, repeating those of `from` along dimensions that it
// does not have or that are 1. Throws std::invalid_argument if the sizes do not fit.
void copy(const Tensor& to, const Tensor& from);

// Sizes and strides of `tensor` as if it had the sizes of `wanted`, with strides of 0 where it is
// repeated. Throws std::invalid_argument if it cannot be.
std::vector<int64_t> broadcast_strides(const Tensor& tensor, Extents wanted);

}  // namespace aoti::native
