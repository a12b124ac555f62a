// Sorted elements and the greatest or least of them, as ATen's (aten/src/ATen/native/Sorting.cpp
// and TopKImpl.h). NaN are greater than all numbers.

#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/layout.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace aoti::native {

namespace {

// Elements as unsigned integers in the same order: one algorithm serves all dtypes. Equal elements,
// 0 and -0 and all NaN among them, have equal keys.
template <class Element>
auto key_of(Element element) noexcept {
  if constexpr (std::is_same_v<Element, double>) {
    constexpr uint64_t kSign = uint64_t{1} << 63;
    if (element != element) {
      return ~uint64_t{0};
    }
    const auto bits = std::bit_cast<uint64_t>(element + 0.0);
    return (bits & kSign) != 0 && element != 0 ? ~bits : bits | kSign;
  } else if constexpr (Floating<Element>) {
    constexpr uint32_t kSign = uint32_t{1} << 31;
    const float value = element;
    if (value != value) {
      return ~uint32_t{0};
    }
    const auto bits = std::bit_cast<uint32_t>(value);
    return value == 0 ? kSign : (bits & kSign) != 0 ? ~bits : bits | kSign;
  } else if constexpr (sizeof(Element) == 8) {
    const auto bits = static_cast<uint64_t>(element);
    return std::is_signed_v<Element> ? bits ^ (uint64_t{1} << 63) : bits;
  } else {
    const auto bits = static_cast<uint32_t>(element);
    return std::is_signed_v<Element> ? bits ^ (uint32_t{1} << 31) : bits;
  }
}

template <class Key>
struct Entry {
  Key key;
  int64_t index;

  bool operator<(const Entry& other) const noexcept {
    return key < other.key || (key == other.key && index < other.index);
  }
};

// A 32-bit key and an index of less than 2^32 in one word, which sorts faster.
struct Word {
  static uint64_t pack(uint32_t key, int64_t index) {
    return static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(index);
  }
};

// By key, and by index where keys are equal: a stable sort.
template <class Key>
void sort_keys(std::vector<Key>& keys, std::vector<int64_t>& indices) {
  const std::size_t count = keys.size();
  if constexpr (sizeof(Key) == 4) {
    if (count <= UINT32_MAX) {
      std::vector<uint64_t> words(count);
      for (std::size_t i = 0; i < count; ++i) {
        words[i] = Word::pack(keys[i], static_cast<int64_t>(i));
      }
      std::sort(words.begin(), words.end());
      for (std::size_t i = 0; i < count; ++i) {
        indices[i] = static_cast<int64_t>(words[i] & UINT32_MAX);
      }
      return;
    }
  }
  std::vector<Entry<Key>> entries(count);
  for (std::size_t i = 0; i < count; ++i) {
    entries[i] = {keys[i], static_cast<int64_t>(i)};
  }
  std::sort(entries.begin(), entries.end());
  for (std::size_t i = 0; i < count; ++i) {
    indices[i] = entries[i].index;
  }
}

// One line of a tensor along the dimension that is worked on, and of its two results.
struct Lines {
  std::vector<int64_t> sizes;  // of all dimensions but that one
  std::vector<int64_t> from, values, indices;
  int64_t size = 1, from_step = 0, values_step = 0, indices_step = 0;

  Lines(const Tensor& self, const Tensor& found, const Tensor& where, int64_t dim) {
    if (self.rank() == 0) {
      return;
    }
    size = self.size(dim);
    from_step = self.stride(dim);
    const bool keeps = found.rank() == self.rank();
    values_step = keeps ? found.stride(dim) : 0;
    indices_step = keeps ? where.stride(dim) : 0;
    for (int64_t i = 0; i < self.rank(); ++i) {
      if (i != dim) {
        const int64_t other = keeps || i < dim ? i : i - 1;
        sizes.push_back(self.sizes()[i]);
        from.push_back(self.strides()[i]);
        values.push_back(found.strides()[other]);
        indices.push_back(where.strides()[other]);
      }
    }
  }

  // body(offsets of the three first elements), on several threads.
  template <class Body>
  void each(const Body& body) const {
    const int64_t count = count_of(sizes);
    for_parts(count, size * 4, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        std::array<int64_t, 3> offsets{};
        int64_t rest = line;
        for (std::size_t dim = sizes.size(); dim-- > 0;) {
          const int64_t at = rest % sizes[dim];
          rest /= sizes[dim];
          offsets[0] += at * from[dim];
          offsets[1] += at * values[dim];
          offsets[2] += at * indices[dim];
        }
        body(offsets);
      }
    });
  }
};

// `kernel(keys, indices)` orders `indices` by `keys`; the first `count` of them are the results.
template <class Kernel>
void arrange(
    const Tensor& self,
    int64_t dim,
    bool reverse,
    int64_t count,
    const Tensor& found,
    const Tensor& where,
    const Kernel& kernel) {
  const Lines lines(self, found, where, dim);
  if (found.numel() == 0) {
    return;
  }
  with_ordered(self.dtype(), [&]<class Element>(Element) {
    using Key = decltype(key_of(Element{}));
    lines.each([&](const std::array<int64_t, 3>& offsets) {
      const auto* const from = self.as<const Element>() + offsets[0];
      std::vector<Key> keys(static_cast<std::size_t>(lines.size));
      std::vector<int64_t> indices(keys.size());
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const Key key = key_of(from[static_cast<int64_t>(i) * lines.from_step]);
        keys[i] = reverse ? ~key : key;
      }
      const int64_t first = kernel(keys, indices);
      auto* const value = found.as<Element>() + offsets[1];
      auto* const index = where.as<int64_t>() + offsets[2];
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = indices[static_cast<std::size_t>(first + i)];
        value[i * lines.values_step] = from[at * lines.from_step];
        index[i * lines.indices_step] = at;
      }
    });
  });
}

void give(Tensor&& found, Tensor&& where, Handle* values, Handle* indices) {
  auto first = std::make_unique<Tensor>(std::move(found));
  hand_over(std::move(where), indices);
  *values = first.release();
}

void sort(const Tensor& self, int64_t given, bool descending, Handle* values, Handle* indices) {
  const int64_t dim = wrapped_dim(given, self.rank());
  const std::vector<int64_t> strides = preserved_strides(self);
  Tensor found = Tensor::empty(self.dtype(), self.sizes_list(), strides);
  Tensor where = Tensor::empty(ScalarType::kInt64, self.sizes_list(), strides);
  const int64_t count = self.rank() == 0 ? 1 : self.size(dim);
  arrange(self, dim, descending, count, found, where, [](auto& keys, auto& order) {
    sort_keys(keys, order);
    return int64_t{0};
  });
  give(std::move(found), std::move(where), values, indices);
}

// The same calls of the same algorithms as ATen's, so that equal elements come out in its order.
template <class Key>
void choose(const std::vector<Key>& keys, std::vector<int64_t>& order, int64_t k, bool sorted) {
  const auto count = static_cast<int64_t>(keys.size());
  std::vector<Entry<Key>> entries(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    entries[i] = {keys[i], static_cast<int64_t>(i)};
  }
  const auto before = [](const Entry<Key>& one, const Entry<Key>& other) {
    return one.key < other.key;
  };
  const auto begin = entries.begin();
  if (k * 64 <= count) {
    std::partial_sort(begin, begin + k, entries.end(), before);
  } else {
    std::nth_element(begin, begin + k - 1, entries.end(), before);
    if (sorted) {
      std::sort(begin, begin + k - 1, before);
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    order[static_cast<std::size_t>(i)] = begin[i].index;
  }
}

void topk(
    const Tensor& self,
    int64_t k,
    int64_t given,
    bool largest,
    bool sorted,
    Handle* values,
    Handle* indices) {
  const int64_t dim = wrapped_dim(given, self.rank());
  const int64_t size = self.rank() == 0 ? 1 : self.size(dim);
  if (k < 0 || k > size || self.dtype() == ScalarType::kBool) {
    throw std::invalid_argument("k is not a count of elements, or they are bool");
  }
  std::vector<int64_t> sizes(self.sizes(), self.sizes() + self.rank());
  if (self.rank() != 0) {
    sizes[static_cast<std::size_t>(dim)] = k;
  } else {
    k = 1;  // a single element is the result, whatever k is
  }
  Tensor found = Tensor::empty(self.dtype(), sizes);
  Tensor where = Tensor::empty(ScalarType::kInt64, sizes);
  if (k != 0) {
    arrange(self, dim, largest, k, found, where, [&](auto& keys, auto& order) {
      choose(keys, order, k, sorted);
      return int64_t{0};
    });
  }
  give(std::move(found), std::move(where), values, indices);
}

// ATen's quick_select_template, which decides which of equal elements is found.
template <class Key>
void select(std::vector<Key>& keys, std::vector<int64_t>& order, int64_t k) {
  const auto greater = [&](int64_t one, int64_t other) {
    return keys[static_cast<std::size_t>(one)] > keys[static_cast<std::size_t>(other)];
  };
  const auto swap = [&](int64_t one, int64_t other) {
    std::swap(keys[static_cast<std::size_t>(one)], keys[static_cast<std::size_t>(other)]);
    std::swap(order[static_cast<std::size_t>(one)], order[static_cast<std::size_t>(other)]);
  };
  int64_t left = 0, right = static_cast<int64_t>(keys.size()) - 1;
  while (right > left) {
    if (right == left + 1) {
      if (greater(left, right)) {
        swap(left, right);
      }
      return;
    }
    swap(left + (right - left) / 2, left + 1);
    if (greater(left + 1, right)) {
      swap(left + 1, right);
    }
    if (greater(left, right)) {
      swap(left, right);
    }
    if (greater(left + 1, left)) {
      swap(left + 1, left);
    }
    int64_t i = left + 1, j = right;
    while (true) {
      do {
        ++i;
      } while (greater(left, i));
      do {
        --j;
      } while (greater(j, left));
      if (j < i) {
        break;
      }
      swap(i, j);
    }
    swap(left, j);
    if (j <= k) {
      left = i;
    }
    if (j >= k) {
      right = j - 1;
    }
  }
}

void kth_value(
    const Tensor& self, int64_t k, int64_t given, bool keeps, Handle* values, Handle* indices) {
  const int64_t dim = wrapped_dim(given, self.rank());
  const int64_t size = self.rank() == 0 ? 1 : self.size(dim);
  if (k < 1 || k > size) {
    throw std::invalid_argument("k is not one of the elements");
  }
  std::vector<int64_t> sizes(self.sizes(), self.sizes() + self.rank());
  if (self.rank() != 0) {
    if (keeps) {
      sizes[static_cast<std::size_t>(dim)] = 1;
    } else {
      sizes.erase(sizes.begin() + dim);
    }
  }
  Tensor found = Tensor::empty(self.dtype(), sizes);
  Tensor where = Tensor::empty(ScalarType::kInt64, sizes);
  arrange(self, dim, false, 1, found, where, [&](auto& keys, auto& order) {
    for (std::size_t i = 0; i < order.size(); ++i) {
      order[i] = static_cast<int64_t>(i);
    }
    select(keys, order, k - 1);
    return k - 1;
  });
  give(std::move(found), std::move(where), values, indices);
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t
aotinative_cpu_sort(Handle self, int64_t dim, int32_t descending, Handle* values, Handle* indices) {
  return served("sort", [&] { sort(*self, dim, descending != 0, values, indices); });
}

AOTI_SERVED int32_t aotinative_cpu_sort_stable(
    Handle self, const int32_t*, int64_t dim, int32_t descending, Handle* values, Handle* indices) {
  return served("sort", [&] { sort(*self, dim, descending != 0, values, indices); });
}

AOTI_SERVED int32_t aotinative_cpu_topk(
    Handle self,
    int64_t k,
    int64_t dim,
    int32_t largest,
    int32_t sorted,
    Handle* values,
    Handle* indices) {
  return served("topk", [&] { topk(*self, k, dim, largest != 0, sorted != 0, values, indices); });
}

AOTI_SERVED int32_t aotinative_cpu_kthvalue(
    Handle self, int64_t k, int64_t dim, int32_t keeps, Handle* values, Handle* indices) {
  return served("kthvalue", [&] { kth_value(*self, k, dim, keeps != 0, values, indices); });
}
