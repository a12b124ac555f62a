// Sums, means and maxima of rows of a table, as ATen's _embedding_bag
// (aten/src/ATen/native/EmbeddingBag.cpp).

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>

namespace aoti::native {

namespace {

enum class Mode : int64_t { kSum = 0, kMean = 1, kMax = 2 };

struct Bags {
  Tensor weight, indices, offsets, factors;  // the last may not be defined; indices are int64
  Mode mode;
  int64_t padding_index;
  int64_t count;

  int64_t begin(int64_t bag) const { return offsets.as<const int64_t>()[bag]; }
  int64_t end(int64_t bag) const {
    return bag + 1 < count ? offsets.as<const int64_t>()[bag + 1] : indices.numel();
  }
};

struct Results {
  Tensor output, bag_of_index, sizes, rows_of_maxima;
};

void check(const Bags& bags) {
  const bool ranks =
      bags.weight.rank() == 2 && bags.indices.rank() == 1 && bags.offsets.rank() == 1;
  if (!ranks || bags.mode < Mode::kSum || bags.mode > Mode::kMax || bags.count < 0) {
    throw std::invalid_argument("the tensors of an embedding_bag do not fit");
  }
  const bool scaled = bags.factors.defined();
  if (scaled && (bags.mode != Mode::kSum || bags.factors.dtype() != bags.weight.dtype() ||
                 bags.factors.rank() != 1 || bags.factors.numel() != bags.indices.numel())) {
    throw std::invalid_argument("the weights of the samples of an embedding_bag do not fit");
  }
  for (int64_t bag = 0; bag < bags.count; ++bag) {
    const bool fits = (bag != 0 || bags.begin(bag) == 0) && bags.begin(bag) <= bags.end(bag);
    if (!fits) {
      throw std::invalid_argument("the offsets of an embedding_bag are not in order");
    }
  }
  for (int64_t i = 0; i < bags.indices.numel(); ++i) {
    const int64_t index = bags.indices.as<const int64_t>()[i];
    if (index < 0 || index >= bags.weight.size(0)) {
      throw std::invalid_argument("an index of an embedding_bag is out of range");
    }
  }
}

template <class Element>
void reduce(const Bags& bags, int64_t bag, int64_t* sizes, int64_t* maxima, Element* output) {
  using Number = Computed<Element>;
  const int64_t width = bags.weight.size(1), step = bags.weight.stride(1);
  const auto* const indices = bags.indices.as<const int64_t>();
  std::vector<Number> sums(static_cast<std::size_t>(width), Number{});
  int64_t taken = 0;
  for (int64_t i = bags.begin(bag); i < bags.end(bag); ++i) {
    const int64_t index = indices[i];
    if (index == bags.padding_index) {
      continue;
    }
    const auto* const row = bags.weight.as<const Element>() + index * bags.weight.stride(0);
    if (bags.mode == Mode::kMax) {
      for (int64_t j = 0; j < width; ++j) {
        const Number value = row[j * step];
        Number& most = sums[static_cast<std::size_t>(j)];
        if (taken == 0 || value > most) {
          most = value;
          maxima[bag * width + j] = index;
        }
      }
    } else {
      Number factor = 1;
      if (bags.factors.defined()) {
        factor = bags.factors.as<const Element>()[i * bags.factors.stride(0)];
      }
      for (int64_t j = 0; j < width; ++j) {
        sums[static_cast<std::size_t>(j)] += factor * static_cast<Number>(row[j * step]);
      }
    }
    ++taken;
  }
  if (bags.mode != Mode::kSum) {
    sizes[bag] = taken;
  }
  const Number divisor = bags.mode == Mode::kMean && taken != 0 ? static_cast<Number>(taken) : 1;
  for (int64_t j = 0; j < width; ++j) {
    output[bag * width + j] = static_cast<Element>(sums[static_cast<std::size_t>(j)] / divisor);
  }
}

// Whether ATen leaves the bags of indices out, which the sum of its fast path does not need.
bool omits_bag_of_index(const Bags& bags) {
  const ScalarType type = bags.weight.dtype();
  return bags.mode == Mode::kSum && type != ScalarType::kFloat64 && bags.weight.stride(1) == 1 &&
         bags.padding_index < 0 && (!bags.factors.defined() || bags.factors.stride(0) == 1);
}

Tensor zeros(Extents sizes) {
  Tensor made = Tensor::empty(ScalarType::kInt64, sizes);
  fill(made, 0);
  return made;
}

Results embedding_bag(const Bags& bags, ScalarType index_type, int64_t listed) {
  check(bags);
  const int64_t width = bags.weight.size(1), none = 0, all = bags.indices.numel();
  const int64_t sizes[] = {bags.count, width};
  const Extents counted = extents(&listed, 1);
  Results results;
  results.output = Tensor::empty(bags.weight.dtype(), sizes);
  const Tensor counts = zeros(counted), bag_of = zeros(extents(&all, 1));
  const Tensor maxima = bags.mode == Mode::kMax ? zeros(sizes) : Tensor();
  with_floating(bags.weight.dtype(), [&]<class Element>(Element) {
    auto* const rows = maxima.defined() ? maxima.as<int64_t>() : nullptr;
    for_parts(
        bags.count,
        width * (all / std::max<int64_t>(bags.count, 1) + 1),
        [&](int64_t begin, int64_t end) {
          for (int64_t bag = begin; bag < end; ++bag) {
            reduce(bags, bag, counts.as<int64_t>(), rows, results.output.as<Element>());
          }
        });
  });
  for (int64_t bag = 0; bag < bags.count; ++bag) {
    std::fill(bag_of.as<int64_t>() + bags.begin(bag), bag_of.as<int64_t>() + bags.end(bag), bag);
  }
  results.bag_of_index = omits_bag_of_index(bags) ? Tensor::empty(index_type, extents(&none, 1))
                                                  : converted(bag_of, index_type);
  results.sizes = converted(counts, index_type);
  results.rows_of_maxima = maxima.defined() ? converted(maxima, index_type) : clone(results.sizes);
  return results;
}

bool is_index(const Tensor& tensor) {
  return tensor.dtype() == ScalarType::kInt64 || tensor.dtype() == ScalarType::kInt32;
}

int32_t serve(
    Handle weight,
    Handle indices,
    Handle offsets,
    int64_t mode,
    const Handle* factors,
    bool includes_last,
    int64_t padding_index,
    bool lists_last,
    Handle* const (&made)[4]) {
  return served("_embedding_bag", [&] {
    if (!is_index(*indices) || !is_index(*offsets)) {
      throw std::invalid_argument("the indices of an embedding_bag are int64 or int32");
    }
    const bool given = factors != nullptr && *factors != nullptr;
    const int64_t listed = offsets->numel(), count = listed - (includes_last ? 1 : 0);
    const Bags bags = {
        *weight,
        in_c_order(converted(*indices, ScalarType::kInt64)),
        in_c_order(converted(*offsets, ScalarType::kInt64)),
        given ? **factors : Tensor(),
        static_cast<Mode>(mode),
        padding_index,
        count,
    };
    Results results = embedding_bag(
        bags, promoted(indices->dtype(), offsets->dtype()), lists_last ? listed : count);
    Tensor* const all[] = {
        &results.output, &results.bag_of_index, &results.sizes, &results.rows_of_maxima};
    std::unique_ptr<Tensor> owned[4];
    for (std::size_t i = 0; i < 4; ++i) {
      owned[i] = std::make_unique<Tensor>(std::move(*all[i]));
    }
    for (std::size_t i = 0; i < 4; ++i) {
      *made[i] = owned[i].release();
    }
  });
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t aotinative_cpu__embedding_bag(
    Handle weight,
    Handle indices,
    Handle offsets,
    int32_t,
    int64_t mode,
    int32_t,
    const Handle* factors,
    int32_t includes_last,
    int64_t padding_index,
    Handle* output,
    Handle* bag_of_index,
    Handle* sizes,
    Handle* maxima) {
  return serve(
      weight,
      indices,
      offsets,
      mode,
      factors,
      includes_last != 0,
      padding_index,
      false,
      {output, bag_of_index, sizes, maxima});
}

AOTI_SERVED int32_t aotinative_cpu__embedding_bag_forward_only(
    Handle weight,
    Handle indices,
    Handle offsets,
    int32_t,
    int64_t mode,
    int32_t,
    const Handle* factors,
    int32_t includes_last,
    int64_t padding_index,
    Handle* output,
    Handle* bag_of_index,
    Handle* sizes,
    Handle* maxima) {
  return serve(
      weight,
      indices,
      offsets,
      mode,
      factors,
      includes_last != 0,
      padding_index,
      mode == static_cast<int64_t>(Mode::kSum),
      {output, bag_of_index, sizes, maxima});
}
