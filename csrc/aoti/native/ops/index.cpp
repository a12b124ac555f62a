// `tensor[i, :, j, ...]`, read and written, as ATen's index and index_put
// (aten/src/ATen/native/TensorAdvancedIndexing.cpp).

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/layout.h>
#include <aoti/native/ops/nonzero.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace aoti::native {

namespace {

using Indices = std::vector<const Tensor*>;  // of the first dimensions; null for `:`

bool is_mask(const Tensor& index) {
  return index.dtype() == ScalarType::kBool || index.dtype() == ScalarType::kUInt8;
}

// One index for each dimension of `tensor`, or none: masks become the positions in them.
std::vector<std::optional<Tensor>> expanded(const Tensor& tensor, const Indices& indices) {
  std::vector<std::optional<Tensor>> result;
  for (const Tensor* const index : indices) {
    if (index == nullptr) {
      result.emplace_back();
    } else if (is_mask(*index)) {
      const Tensor found = nonzero(*index);
      const auto first = static_cast<int64_t>(result.size());
      for (int64_t i = 0; i < index->rank(); ++i) {
        if (first + i >= tensor.rank() || index->size(i) != tensor.size(first + i)) {
          throw std::invalid_argument("a mask does not fit the tensor that it indexes");
        }
        const int64_t count = found.size(0), step = 1;
        result.emplace_back(Tensor(
            found.storage(), found.dtype(), extents(&count, 1), extents(&step, 1), i * count));
      }
    } else if (index->dtype() == ScalarType::kInt64 || index->dtype() == ScalarType::kInt32) {
      result.emplace_back(*index);
    } else {
      throw std::invalid_argument("an index is of int64, int32, bool or uint8");
    }
  }
  if (static_cast<int64_t>(result.size()) > tensor.rank()) {
    throw std::invalid_argument("there are more indices than dimensions");
  }
  result.resize(static_cast<std::size_t>(tensor.rank()));
  return result;
}

Tensor strided(const Tensor& tensor, Extents sizes, Extents strides) {
  return Tensor(tensor.storage(), tensor.dtype(), sizes, strides, tensor.offset());
}

// The order of dimensions that brings indexed ones together: as it is if they are neighbours, else
// they come first.
std::vector<std::size_t> joined_order(const std::vector<std::optional<Tensor>>& indices) {
  std::vector<std::size_t> indexed, others;
  for (std::size_t dim = 0; dim < indices.size(); ++dim) {
    (indices[dim] ? indexed : others).push_back(dim);
  }
  if (indexed.empty() || indexed.back() - indexed.front() + 1 == indexed.size()) {
    indexed.resize(indices.size());
    for (std::size_t dim = 0; dim < indices.size(); ++dim) {
      indexed[dim] = dim;
    }
    return indexed;
  }
  indexed.insert(indexed.end(), others.begin(), others.end());
  return indexed;
}

// Offsets of all elements of `sizes` in C order.
std::vector<int64_t> offsets_of(Extents sizes, Extents strides) {
  std::vector<int64_t> offsets;
  offsets.reserve(static_cast<std::size_t>(count_of(sizes)));
  const std::array<const int64_t*, 1> steps = {strides.data()};
  for_rows<1>(sizes, steps, [&](auto first, int64_t count, auto step) {
    for (int64_t i = 0; i < count; ++i) {
      offsets.push_back(first[0] + i * step[0]);
    }
  });
  return offsets;
}

// What is selected: it has the dimensions before the indexed ones, those that the indices are
// broadcast to, and those after.
class Selection {
 public:
  Selection(const Tensor& tensor, const Indices& given) : tensor_(tensor) {
    std::vector<std::optional<Tensor>> indices = expanded(tensor, given);
    const std::vector<std::size_t> order = joined_order(indices);
    std::vector<int64_t> sizes, strides;
    for (const std::size_t dim : order) {
      if (indices[dim]) {
        indices_.push_back(std::move(*indices[dim]));
        limits_.push_back(tensor.sizes()[dim]);
        steps_.push_back(tensor.strides()[dim]);
      } else {
        before_ += indices_.empty() ? 1 : 0;
        sizes.push_back(tensor.sizes()[dim]);
        strides.push_back(tensor.strides()[dim]);
      }
    }
    for (const Tensor& index : indices_) {
      middle_ = broadcast_sizes({Extents(middle_), index.sizes_list()});
    }
    for (Tensor& index : indices_) {
      if (index.dtype() != ScalarType::kInt64) {  // the strides of the result depend on this order
        index = converted(
            strided(index, middle_, broadcast_strides(index, middle_)), ScalarType::kInt64);
      }
    }
    sizes_ = sizes;
    sizes_.insert(sizes_.begin() + static_cast<int64_t>(before_), middle_.begin(), middle_.end());
    strides_ = strides;
    strides_.insert(strides_.begin() + static_cast<int64_t>(before_), middle_.size(), 0);
    find_offsets();
  }

  const std::vector<int64_t>& sizes() const noexcept { return sizes_; }

  Tensor make() const {
    if (indices_.empty()) {
      return Tensor::empty(tensor_.dtype(), sizes_, result_strides(sizes_, std::vector{&tensor_}));
    }
    std::vector<Tensor> operands;
    operands.push_back(strided(tensor_, sizes_, strides_));
    for (const Tensor& index : indices_) {
      operands.push_back(among_others(index));
    }
    std::vector<const Tensor*> pointers;
    for (const Tensor& operand : operands) {
      pointers.push_back(&operand);
    }
    return Tensor::empty(tensor_.dtype(), sizes_, result_strides(sizes_, pointers));
  }

  // Calls body(offset in our tensor, offset in the other one, count, step, other step) for rows of
  // elements, in C order. `strides` are those of the other tensor, of our sizes. Without `shares`,
  // on this thread alone.
  template <class Body>
  void for_rows(Extents strides, bool shares, const Body& body) const {
    const std::size_t after = before_ + middle_.size();
    const auto first = [&](Extents list) { return list.first(before_); };
    const auto middle = [&](Extents list) { return list.subspan(before_, middle_.size()); };
    const std::size_t rest = sizes_.size() > after ? sizes_.size() - 1 - after : 0;
    const auto third = [&](Extents list) {
      return list.subspan(std::min(after, list.size()), rest);
    };
    const bool inner = sizes_.size() > after;
    const int64_t count = inner ? sizes_.back() : 1;
    const int64_t step = inner ? strides_.back() : 0, other = inner ? strides.back() : 0;
    const auto both = [&](auto part) {
      return std::pair(
          offsets_of(part(sizes_), part(strides_)), offsets_of(part(sizes_), part(strides)));
    };
    const auto [before_ours, before_other] = both(first);
    const auto [after_ours, after_other] = both(third);
    const std::vector<int64_t> middle_other = offsets_of(middle(sizes_), middle(strides));
    const auto rows = [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const auto i = static_cast<std::size_t>(index) / offsets_.size();
        const auto j = static_cast<std::size_t>(index) % offsets_.size();
        for (std::size_t k = 0; k < after_ours.size(); ++k) {
          body(
              before_ours[i] + offsets_[j] + after_ours[k],
              before_other[i] + middle_other[j] + after_other[k],
              count,
              step,
              other);
        }
      }
    };
    const auto pieces = static_cast<int64_t>(before_ours.size() * offsets_.size());
    if (shares) {
      for_parts(pieces, count * static_cast<int64_t>(after_ours.size()), rows);
    } else {
      rows(0, pieces);
    }
  }

 private:
  // The offsets that the indices stand for. Throws std::invalid_argument if one is out of range.
  void find_offsets() {
    const bool nothing = count_of(middle_) == 0;
    if (!nothing && std::find(limits_.begin(), limits_.end(), 0) != limits_.end()) {
      throw std::invalid_argument("an index into a dimension of size 0");
    }
    const bool used = count_of(sizes_) != 0;  // ATen checks no others
    offsets_.assign(static_cast<std::size_t>(count_of(middle_)), 0);
    for (std::size_t i = 0; used && i < indices_.size(); ++i) {
      const std::vector<int64_t> strides = broadcast_strides(indices_[i], middle_);
      const std::array<const int64_t*, 1> steps = {strides.data()};
      const int64_t limit = limits_[i];
      auto offset = offsets_.begin();
      native::for_rows<1>(middle_, steps, [&](auto first, int64_t count, auto step) {
        const auto* const row = indices_[i].as<const int64_t>() + first[0];
        for (int64_t j = 0; j < count; ++j) {
          const int64_t index = row[j * step[0]];
          if (index < -limit || index >= limit) {
            throw std::invalid_argument(
                "index " + std::to_string(index) + " is out of range for a dimension of size " +
                std::to_string(limit));
          }
          *offset++ += (index < 0 ? index + limit : index) * steps_[i];
        }
      });
    }
  }

  // An index with dimensions of 1 for those before and after, and the strides that ATen's reshape
  // gives it: dimensions of 1 get those that they had in C order.
  Tensor among_others(const Tensor& index) const {
    std::vector<int64_t> sizes(before_, 1), strides(before_, 1);
    const std::vector<int64_t> own = broadcast_strides(index, middle_);
    sizes.insert(sizes.end(), middle_.begin(), middle_.end());
    strides.insert(strides.end(), own.begin(), own.end());
    sizes.resize(sizes_.size(), 1);
    strides.resize(sizes_.size(), 1);
    int64_t stride = own.empty() ? 1 : own.back();
    for (std::size_t dim = sizes.size(); dim-- > 0;) {
      if (sizes[dim] != 1) {
        stride = strides[dim] * sizes[dim];
      } else {
        strides[dim] = stride;
      }
    }
    if (count_of(middle_) == 0 && sizes.size() != middle_.size()) {
      strides = contiguous_strides(sizes);
    }
    return strided(index, sizes, strides);
  }

  Tensor tensor_;
  std::vector<Tensor> indices_;
  std::vector<int64_t> limits_, steps_;            // of the dimensions that are indexed
  std::vector<int64_t> sizes_, strides_, middle_;  // strides in our tensor; 0 for the middle
  std::vector<int64_t> offsets_;
  std::size_t before_ = 0;
};

Tensor index(const Tensor& self, const Indices& indices) {
  const Selection selection(self, indices);
  Tensor made = selection.make();
  if (made.numel() == 0) {
    return made;
  }
  with_itemsize(self.itemsize(), [&]<class Element>(Element) {
    const auto* const from = self.as<const Element>();
    auto* const to = made.as<Element>();
    selection.for_rows(
        made.strides_list(),
        true,
        [&](int64_t at, int64_t other, int64_t count, int64_t step, int64_t other_step) {
          if (step == 1 && other_step == 1) {
            std::memcpy(to + other, from + at, static_cast<std::size_t>(count) * sizeof(Element));
            return;
          }
          for (int64_t i = 0; i < count; ++i) {
            to[other + i * other_step] = from[at + i * step];
          }
        });
  });
  return made;
}

template <class Element>
Element sum_of(Element one, Element other) {
  if constexpr (std::is_same_v<Element, bool>) {
    return one || other;
  } else if constexpr (std::is_integral_v<Element>) {
    return static_cast<Element>(static_cast<uint64_t>(one) + static_cast<uint64_t>(other));
  } else {
    return static_cast<Element>(
        static_cast<Computed<Element>>(one) + static_cast<Computed<Element>>(other));
  }
}

void put(const Tensor& self, const Indices& indices, const Tensor& values, bool accumulate) {
  if (values.dtype() != self.dtype()) {
    throw std::invalid_argument("the values are of another dtype than the tensor");
  }
  const Selection selection(self, indices);
  const std::vector<int64_t> strides = broadcast_strides(values, selection.sizes());
  if (count_of(selection.sizes()) == 0) {
    return;
  }
  const auto write = [&]<class Element>(Element, const auto& combine) {
    auto* const to = self.as<Element>();
    const auto* const from = values.as<const Element>();
    selection.for_rows(
        strides,
        false,
        [&](int64_t at, int64_t other, int64_t count, int64_t step, int64_t other_step) {
          for (int64_t i = 0; i < count; ++i) {
            Element& target = to[at + i * step];
            target = combine(target, from[other + i * other_step]);
          }
        });
  };
  if (!accumulate) {
    return with_itemsize(self.itemsize(), [&]<class Element>(Element) {
      write(Element{}, [](Element, Element value) { return value; });
    });
  }
  const auto add = [&]<class Element>(Element) { write(Element{}, sum_of<Element>); };
  if (self.dtype() == ScalarType::kBool) {
    add(bool{});
  } else if (is_complex(self.dtype())) {
    with_complex(self.dtype(), add);
  } else {
    with_number(self.dtype(), add);
  }
}

Indices optional_indices(const Handle* const* handles, int64_t count) {
  Indices indices;
  for (int64_t i = 0; i < count; ++i) {
    indices.push_back(handles[i] == nullptr ? nullptr : *handles[i]);
  }
  return indices;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t
aotinative_cpu_index_Tensor(Handle self, const Handle** indices, int64_t count, Handle* made) {
  return served("index", [&] { hand_over(index(*self, optional_indices(indices, count)), made); });
}

AOTI_SERVED int32_t aotinative_cpu_index_put(
    Handle self,
    const Handle** indices,
    int64_t count,
    Handle values,
    int32_t accumulate,
    Handle* made) {
  return served("index_put", [&] {
    Tensor result = clone(*self);
    put(result, optional_indices(indices, count), *values, accumulate != 0);
    hand_over(std::move(result), made);
  });
}

AOTI_SERVED int32_t aotinative_index_put_out(
    Handle out,
    Handle self,
    const Handle* indices,
    uint32_t count,
    Handle values,
    bool accumulate) {
  return served("index_put", [&] {
    // Tensors that are written may share memory with those that are read.
    const Tensor kept =
        values->storage().identity() == out->storage().identity() ? clone(*values) : *values;
    convert(*out, *self);
    put(*out, Indices(indices, indices + count), kept, accumulate);
  });
}
