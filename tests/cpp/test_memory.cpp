#include <aoti/core/memory.h>

#include "arrays.h"
#include "expect.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <thread>

namespace aoti {

namespace {

// A file without a name, of `bytes` bytes that count up.
class File {
 public:
  explicit File(std::size_t bytes) : file_(std::tmpfile()) {
    REQUIRE(file_ != nullptr);
    for (std::size_t i = 0; i < bytes; ++i) {
      std::fputc(at(i), file_);
    }
    std::fflush(file_);
  }
  ~File() { std::fclose(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int descriptor() const { return fileno(file_); }
  static unsigned char at(std::size_t offset) {
    return static_cast<unsigned char>(offset * 31 + offset / 256);
  }

 private:
  std::FILE* file_;
};

const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));

bool same_as_file(Memory& memory, std::size_t offset) {
  const auto* bytes = static_cast<const unsigned char*>(memory.at(0));
  for (std::size_t i = 0; i < memory.bytes(); ++i) {
    if (bytes[i] != File::at(offset + i)) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST(a_part_of_a_file_is_mapped_wherever_it_begins) {
  const File file(3 * page);
  for (std::size_t offset : {std::size_t{0}, std::size_t{1}, page - 1, page, page + 64}) {
    for (bool writable : {false, true}) {
      std::shared_ptr<Memory> memory;
      REQUIRE_OK(Memory::map(file.descriptor(), offset, page + 3, writable, memory));
      EXPECT_EQ(memory->bytes(), page + 3);
      EXPECT(same_as_file(*memory, offset));
      memory->populate();
      EXPECT(same_as_file(*memory, offset));
    }
  }
}

TEST(what_is_written_to_a_writable_map_is_private) {
  const File file(page);
  std::shared_ptr<Memory> writable, shared;
  REQUIRE_OK(Memory::map(file.descriptor(), 8, 16, true, writable));
  REQUIRE_OK(Memory::map(file.descriptor(), 8, 16, false, shared));
  std::memset(writable->at(0), 0xff, 16);
  EXPECT(same_as_file(*shared, 8));
  std::shared_ptr<Memory> read;
  REQUIRE_OK(Memory::read(file.descriptor(), 8, 16, read));
  EXPECT(same_as_file(*read, 8));
}

TEST(a_part_of_a_file_is_read_into_writable_memory) {
  const File file(2 * page);
  std::shared_ptr<Memory> memory;
  REQUIRE_OK(Memory::read(file.descriptor(), 5, page, memory));
  EXPECT(same_as_file(*memory, 5));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory->at(0)) % page, 0);
  *static_cast<char*>(memory->at(page - 1)) = 0;
}

TEST(a_file_that_is_too_short_is_not_read) {
  const File file(page);
  std::shared_ptr<Memory> memory;
  for (std::size_t offset : {std::size_t{1}, page, 5 * page}) {
    const Status status = Memory::read(file.descriptor(), offset, page, memory);
    EXPECT_EQ(status.code, StatusCode::kExecution);
    EXPECT(status.message.find("could not be read") != std::string::npos);
    EXPECT(memory == nullptr);
  }
}

TEST(a_file_that_cannot_be_used_is_a_status_that_says_why) {
  std::shared_ptr<Memory> memory;
  const std::string why = std::generic_category().message(EBADF);
  Status status = Memory::map(-1, 0, 16, false, memory);
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT(status.message.find(why) != std::string::npos);
  status = Memory::read(-1, 0, 16, memory);
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT(status.message.find(why) != std::string::npos);
  EXPECT(memory == nullptr);
}

TEST(no_bytes_need_no_file) {
  std::shared_ptr<Memory> memory;
  REQUIRE_OK(Memory::map(-1, 7, 0, false, memory));
  EXPECT_EQ(memory->bytes(), 0);
  memory->populate();
  REQUIRE_OK(Memory::read(-1, 7, 0, memory));
  EXPECT_EQ(memory->bytes(), 0);
}

TEST(a_map_outlives_its_file) {
  std::shared_ptr<Memory> memory;
  {
    const File file(page);
    REQUIRE_OK(Memory::map(file.descriptor(), 3, 16, false, memory));
  }
  EXPECT(same_as_file(*memory, 3));
}

TEST(tensors_keep_the_memory_they_lie_in) {
  const File file(page);
  std::shared_ptr<Memory> memory;
  REQUIRE_OK(Memory::map(file.descriptor(), 8, 64, true, memory));
  const std::weak_ptr<Memory> alive = memory;
  Tensor first, second;
  REQUIRE_OK(tensor_in(memory, 16, kInt32, {2, 3}, {1, 2}, first));
  REQUIRE_OK(tensor_in(memory, 0, kInt32, {}, {}, second));
  EXPECT_EQ(first.data(), memory->at(16));
  EXPECT_EQ(first.sizes()[1], 3);
  EXPECT_EQ(first.strides()[1], 2);
  EXPECT_EQ(second.rank(), 0);
  memory.reset();
  second.reset();
  EXPECT(!alive.expired());
  EXPECT_EQ(*static_cast<unsigned char*>(first.data()), File::at(24));
  std::thread([mine = std::move(first)] { EXPECT(mine.defined()); }).join();
  EXPECT(alive.expired());
}

}  // namespace aoti
