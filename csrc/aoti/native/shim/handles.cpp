// Tensor handles: made, copied, described and deleted. The declarations are those of PyTorch's
// torch/csrc/inductor/aoti_torch/c/shim.h.

#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/lent.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace aoti::native {

namespace {

constexpr int32_t kCpu = 0, kStrided = 0;

thread_local bool grad_mode = true;

std::vector<std::unique_ptr<Tensor>>*& kept_copies() noexcept {
  static thread_local std::vector<std::unique_ptr<Tensor>>* into = nullptr;
  return into;
}

ScalarType dtype_of(int32_t number) { return static_cast<ScalarType>(number); }

void check_device(int32_t type) {
  if (type != kCpu) {
    throw std::invalid_argument("the native engine has no device but the CPU");
  }
}

}  // namespace

KeepCopies::KeepCopies(std::vector<std::unique_ptr<Tensor>>& into) noexcept {
  kept_copies() = &into;
}
KeepCopies::~KeepCopies() { kept_copies() = nullptr; }
std::vector<std::unique_ptr<Tensor>>* KeepCopies::current() noexcept { return kept_copies(); }

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

// -- made and deleted -----------------------------------------------------------------------------

AOTI_SERVED int32_t aotinative_empty_strided(
    int64_t ndim,
    const int64_t* sizes,
    const int64_t* strides,
    int32_t dtype,
    int32_t device_type,
    int32_t,
    Handle* made) {
  return served("empty_strided", [&] {
    check_device(device_type);
    hand_over(Tensor::empty(dtype_of(dtype), extents(sizes, ndim), extents(strides, ndim)), made);
  });
}

AOTI_SERVED int32_t aotinative_create_tensor_from_blob(
    void* data,
    int64_t ndim,
    const int64_t* sizes,
    const int64_t* strides,
    int64_t offset,
    int32_t dtype,
    int32_t device_type,
    int32_t,
    Handle* made) {
  return served("create_tensor_from_blob", [&] {
    check_device(device_type);
    hand_over(
        Tensor::over(
            data,
            dtype_of(dtype),
            extents(sizes, ndim),
            extents(strides, ndim),
            offset,
            nullptr,
            nullptr),
        made);
  });
}

AOTI_SERVED int32_t aotinative_create_tensor_from_blob_v2(
    void* data,
    int64_t ndim,
    const int64_t* sizes,
    const int64_t* strides,
    int64_t offset,
    int32_t dtype,
    int32_t device_type,
    int32_t device_index,
    Handle* made,
    int32_t layout,
    const uint8_t*,
    int64_t) {
  if (layout != kStrided) {
    return served("create_tensor_from_blob_v2", [] {
      throw std::invalid_argument("a constant is packed for an operator of libtorch");
    });
  }
  return aotinative_create_tensor_from_blob(
      data, ndim, sizes, strides, offset, dtype, device_type, device_index, made);
}

AOTI_SERVED int32_t aotinative_new_uninitialized_tensor(Handle* made) {
  return served("new_uninitialized_tensor", [&] { hand_over(Tensor(), made); });
}

AOTI_SERVED int32_t aotinative_new_tensor_handle(Handle original, Handle* made) {
  return served("new_tensor_handle", [&] {
    auto copy = std::make_unique<Tensor>(*original);
    *made = copy.get();
    if (auto* const kept = KeepCopies::current(); kept != nullptr) {
      copy->lent = true;
      kept->push_back(std::move(copy));
    }
    static_cast<void>(copy.release());
  });
}

AOTI_SERVED int32_t aotinative_delete_tensor_object(Handle tensor) {
  if (tensor != nullptr && !tensor->lent) {
    const std::unique_ptr<Tensor> deleted(tensor);
  }
  return 0;
}

AOTI_SERVED int32_t aotinative__reinterpret_tensor(
    Handle self,
    int64_t ndim,
    const int64_t* sizes,
    const int64_t* strides,
    int64_t further,
    Handle* made) {
  return served("_reinterpret_tensor", [&] {
    hand_over(
        Tensor(
            self->storage(),
            self->dtype(),
            extents(sizes, ndim),
            extents(strides, ndim),
            self->offset() + further),
        made);
  });
}

AOTI_SERVED int32_t aotinative__alloc_from_pool(
    Handle self,
    int64_t offset_bytes,
    int32_t dtype,
    int64_t ndim,
    const int64_t* sizes,
    const int64_t* strides,
    Handle* made) {
  return served("_alloc_from_pool", [&] {
    const ScalarType type = dtype_of(dtype);
    hand_over(
        Tensor(
            self->storage(),
            type,
            extents(sizes, ndim),
            extents(strides, ndim),
            offset_bytes / itemsize_of(type)),
        made);
  });
}

AOTI_SERVED int32_t
aotinative_as_strided(Handle self, const int64_t* sizes, const int64_t* strides, Handle* made) {
  return aotinative__reinterpret_tensor(self, self->rank(), sizes, strides, 0, made);
}

AOTI_SERVED int32_t aotinative_assign_tensors(Handle source, Handle target) {
  return served("assign_tensors", [&] { *target = *source; });
}

AOTI_SERVED int32_t aotinative_assign_tensors_out(Handle source, Handle* made) {
  return served("assign_tensors_out", [&] { hand_over(Tensor(*source), made); });
}

// -- copied ---------------------------------------------------------------------------------------

AOTI_SERVED int32_t aotinative_clone(Handle self, Handle* made) {
  return served("clone", [&] { hand_over(clone(*self), made); });
}

AOTI_SERVED int32_t aotinative_clone_preserve_strides(Handle self, Handle* made) {
  return served("clone_preserve_strides", [&] {
    Tensor copy = Tensor::empty(self->dtype(), self->sizes_list(), self->strides_list());
    if (self->numel() != 0) {  // what lies between the elements comes along
      std::copy_n(self->as<char>(), copy.storage().bytes(), copy.as<char>());
    }
    hand_over(std::move(copy), made);
  });
}

// -- described ------------------------------------------------------------------------------------

AOTI_SERVED int32_t aotinative_get_data_ptr(Handle tensor, void** data) {
  *data = tensor->data();
  return 0;
}

AOTI_SERVED int32_t aotinative_get_storage_size(Handle tensor, int64_t* bytes) {
  *bytes = static_cast<int64_t>(tensor->storage().bytes());
  return 0;
}

AOTI_SERVED int32_t aotinative_get_storage_numel(Handle tensor, int64_t* count) {
  *count = static_cast<int64_t>(tensor->storage().bytes()) / tensor->itemsize();
  return 0;
}

AOTI_SERVED int32_t aotinative_get_dim(Handle tensor, int64_t* rank) {
  *rank = tensor->rank();
  return 0;
}

AOTI_SERVED int32_t aotinative_get_numel(Handle tensor, int64_t* count) {
  *count = tensor->numel();
  return 0;
}

AOTI_SERVED int32_t aotinative_get_sizes(Handle tensor, int64_t** sizes) {
  *sizes = tensor->sizes();
  return 0;
}

AOTI_SERVED int32_t aotinative_get_strides(Handle tensor, int64_t** strides) {
  *strides = tensor->strides();
  return 0;
}

AOTI_SERVED int32_t aotinative_get_size(Handle tensor, int64_t dim, int64_t* size) {
  return served("get_size", [&] { *size = tensor->size(dim); });
}

AOTI_SERVED int32_t aotinative_get_stride(Handle tensor, int64_t dim, int64_t* stride) {
  return served("get_stride", [&] { *stride = tensor->stride(dim); });
}

AOTI_SERVED int32_t aotinative_get_dtype(Handle tensor, int32_t* dtype) {
  *dtype = static_cast<int32_t>(tensor->dtype());
  return 0;
}

AOTI_SERVED int32_t aotinative_get_device_type(Handle, int32_t* type) {
  *type = kCpu;
  return 0;
}

AOTI_SERVED int32_t aotinative_get_device_index(Handle, int32_t* index) {
  *index = -1;
  return 0;
}

AOTI_SERVED int32_t aotinative_get_layout(Handle, int32_t* layout) {
  *layout = kStrided;
  return 0;
}

AOTI_SERVED int32_t aotinative_get_storage_offset(Handle tensor, int64_t* offset) {
  *offset = tensor->offset();
  return 0;
}

AOTI_SERVED int32_t aotinative_is_contiguous(Handle tensor, bool* contiguous) {
  *contiguous = tensor->is_contiguous();
  return 0;
}

AOTI_SERVED int32_t aotinative_is_defined(Handle tensor, bool* defined) {
  *defined = tensor->defined();
  return 0;
}

// -- state of a thread ----------------------------------------------------------------------------

AOTI_SERVED bool aotinative_grad_mode_is_enabled() { return grad_mode; }

AOTI_SERVED void aotinative_grad_mode_set_enabled(bool enabled) { grad_mode = enabled; }

// Throws into compiled code, as libtorch's does.
AOTI_SERVED void aotinative_check(
    bool condition, const char*, const char*, uint32_t, const char* message) {
  if (!condition) {
    throw std::runtime_error(message);
  }
}

AOTI_SERVED void aotinative_warn(const char*, const char*, uint32_t, const char*) {}
