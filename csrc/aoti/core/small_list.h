#pragma once

// A list whose first elements need no allocation: a call has few inputs and outputs, and malloc
// takes as long as a check.

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

namespace aoti {

// `Element` is a C struct; new elements are all zeros. Neither copied nor moved.
template <class Element, std::size_t kInline>
class SmallList {
  static_assert(std::is_trivially_copyable_v<Element>);

 public:
  SmallList() = default;
  SmallList(const SmallList&) = delete;
  SmallList& operator=(const SmallList&) = delete;

  // Room for `count` elements in all, in which the present ones keep their values.
  void reserve(std::size_t count) {
    if (count > kInline && count > further_.size()) {
      std::vector<Element> more(count);
      if (size_ != 0) {
        std::memcpy(more.data(), data_, size_ * sizeof(Element));
      }
      further_.swap(more);
      data_ = further_.data();
    }
  }

  // Adds an element, all zeros. It is filled where it lies: a copy would wait until the fields that
  // were just written reach the cache.
  Element& add() {
    if (size_ >= kInline && size_ >= further_.size()) {
      reserve(2 * size_);
    }
    data_[size_] = Element{};
    return data_[size_++];
  }

  // Makes it `count` elements, all zeros.
  void assign_zeros(std::size_t count) {
    size_ = 0;
    reserve(count);
    if (count != 0) {
      std::memset(static_cast<void*>(data_), 0, count * sizeof(Element));
    }
    size_ = count;
  }

  void clear() noexcept { size_ = 0; }

  Element* data() noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  Element& operator[](std::size_t index) noexcept { return data_[index]; }
  const Element& operator[](std::size_t index) const noexcept { return data_[index]; }
  Element& back() noexcept { return data_[size_ - 1]; }
  Element* begin() noexcept { return data_; }
  Element* end() noexcept { return data_ + size_; }

 private:
  Element inline_[kInline];
  Element* data_ = inline_;
  std::size_t size_ = 0;
  std::vector<Element> further_;
};

}  // namespace aoti
