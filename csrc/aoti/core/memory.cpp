#include <aoti/core/memory.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace aoti {

namespace {

void* mapped(std::size_t bytes, int protection, int flags, int file, std::size_t offset = 0) {
  if (bytes == 0) {
    return nullptr;
  }
  void* base = mmap(nullptr, bytes, protection, flags, file, static_cast<off_t>(offset));
  if (base == MAP_FAILED) {
    throw std::system_error(errno, std::generic_category(), "the weights could not be mapped");
  }
  return base;
}

}  // namespace

Status Memory::map(
    int file,
    std::size_t offset,
    std::size_t bytes,
    bool writable,
    std::shared_ptr<Memory>& memory) noexcept {
  return catch_all([&]() -> Status {
    // A model that writes to its weights writes to pages of this process alone.
    const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    const int sharing = writable ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t before = bytes == 0 ? 0 : offset % page;
    void* base = mapped(before + bytes, protection, sharing, file, offset - before);
    memory.reset(new Memory(base, before, bytes));
    return {};
  });
}

Status Memory::read(
    int file, std::size_t offset, std::size_t bytes, std::shared_ptr<Memory>& memory) noexcept {
  return catch_all([&]() -> Status {
    void* base = mapped(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    const std::shared_ptr<Memory> made(new Memory(base, 0, bytes));
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t got =
          pread(file, made->at(done), bytes - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got <= 0) {
        throw std::system_error(
            got < 0 ? errno : EIO, std::generic_category(), "the weights could not be read");
      }
      done += static_cast<std::size_t>(got);
    }
    memory = made;
    return {};
  });
}

Memory::~Memory() {
  if (base_ != nullptr) {
    munmap(base_, before_ + bytes_);
  }
}

void Memory::populate() noexcept {
#ifdef MADV_POPULATE_READ
  if (base_ != nullptr) {
    madvise(base_, before_ + bytes_, MADV_POPULATE_READ);
  }
#endif
}

Status tensor_in(
    const std::shared_ptr<Memory>& memory,
    std::size_t offset,
    DType dtype,
    const std::vector<int64_t>& sizes,
    const std::vector<int64_t>& strides,
    Tensor& tensor) noexcept {
  return catch_all([&]() -> Status {
    DLTensor view{};
    view.data = memory->at(offset);
    view.device = kCpu;
    view.ndim = static_cast<int32_t>(sizes.size());
    view.dtype = dl_type_of(dtype);
    view.shape = const_cast<int64_t*>(sizes.data());
    view.strides = const_cast<int64_t*>(strides.data());
    auto owner = std::make_unique<std::shared_ptr<Memory>>(memory);
    tensor = Tensor::over(
        view, owner.get(), [](void* held) { delete static_cast<std::shared_ptr<Memory>*>(held); });
    owner.release();
    return {};
  });
}

}  // namespace aoti
