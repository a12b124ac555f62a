// Scaled dot-product attention, as ATen's _scaled_dot_product_flash_attention_for_cpu
// (aten/src/ATen/native/transformers/attention.cpp).

#include <aoti/native/kernels/attention/attention.h>
#include <aoti/native/ops/layout.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

namespace aoti::native {

namespace {

Strides4 strides_of(const Tensor& tensor) {
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

Attention::Element element_of(ScalarType type) {
  switch (type) {
    case ScalarType::kFloat32:
      return Attention::Element::kFloat32;
    case ScalarType::kBFloat16:
      return Attention::Element::kBFloat16;
    case ScalarType::kFloat16:
      return Attention::Element::kFloat16;
    default:
      throw std::invalid_argument("attention takes floating-point tensors only");
  }
}

Attention::Mask mask_of(ScalarType type) {
  switch (type) {
    case ScalarType::kFloat32:
      return Attention::Mask::kFloat;
    case ScalarType::kBFloat16:
      return Attention::Mask::kBFloat16;
    case ScalarType::kFloat16:
      return Attention::Mask::kFloat16;
    case ScalarType::kBool:
      return Attention::Mask::kBool;
    default:
      throw std::invalid_argument("an attention mask is float32, bfloat16, float16 or bool");
  }
}

void check(const Tensor& query, const Tensor& key, const Tensor& value) {
  if (query.rank() != 4 || key.rank() != 4 || value.rank() != 4) {
    throw std::invalid_argument("attention takes tensors of four dimensions");
  }
  const bool fits = key.dtype() == query.dtype() && value.dtype() == query.dtype() &&
                    key.size(0) == query.size(0) && value.size(0) == query.size(0) &&
                    value.size(1) == key.size(1) && value.size(2) == key.size(2) &&
                    key.size(3) == query.size(3) && value.size(3) == query.size(3) &&
                    key.size(1) != 0 && query.size(1) % key.size(1) == 0;
  if (!fits) {
    throw std::invalid_argument("query, key and value of an attention do not fit");
  }
}

Tensor make_log_sum_exp(const Tensor& query) {
  const int64_t heads = query.size(1), rows = query.size(2);
  const int64_t sizes[] = {query.size(0), heads, rows};
  const int64_t strides[] = {rows * heads, 1, heads};
  const bool doubles = query.dtype() == ScalarType::kFloat64;
  return Tensor::empty(doubles ? ScalarType::kFloat64 : ScalarType::kFloat32, sizes, strides);
}

double* at(const void* data, const Strides4& strides, int64_t b, int64_t h, int64_t row) {
  return static_cast<double*>(const_cast<void*>(data)) + b * strides.batch + h * strides.head +
         row * strides.row;
}

// The kernels have no float64, which models hardly use: row by row, all scores of a row at once.
void attend_to_doubles(const Attention& a, double scale, Tensor& sums) {
  const AttentionShape& s = a.shape;
  std::vector<double> weights(static_cast<std::size_t>(s.keys));
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t shared = h / (s.heads / s.key_heads);
      for (int64_t i = 0; i < s.queries; ++i) {
        const double* const query = at(a.query, a.query_strides, b, h, i);
        const int64_t seen = a.causal ? std::min(i + 1, s.keys) : s.keys;
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t j = 0; j < seen; ++j) {
          const double* const key = at(a.key, a.key_strides, b, shared, j);
          double score = 0;
          for (int64_t d = 0; d < s.head_size; ++d) {
            score += query[d * a.query_strides.column] * key[d * a.key_strides.column];
          }
          score *= scale;
          if (a.mask != nullptr) {
            score += at(a.mask, a.mask_strides, b, h, i)[j * a.mask_strides.column];
          }
          weights[static_cast<std::size_t>(j)] = score;
          most = score > most || std::isnan(score) ? score : most;
        }
        const bool blind = most == -std::numeric_limits<double>::infinity();
        for (int64_t j = 0; j < seen; ++j) {
          double& weight = weights[static_cast<std::size_t>(j)];
          weight = blind ? 0 : std::exp(weight - most);
          sum += weight;
        }
        sums.as<double>()[b * sums.stride(0) + h * sums.stride(1) + i * sums.stride(2)] =
            blind ? 0 : most + std::log(sum);
        double* const output = at(a.output, a.output_strides, b, h, i);
        for (int64_t d = 0; d < s.value_size; ++d) {
          double total = 0;
          for (int64_t j = 0; j < seen; ++j) {
            total += weights[static_cast<std::size_t>(j)] *
                     at(a.value, a.value_strides, b, shared, j)[d * a.value_strides.column];
          }
          output[d * a.output_strides.column] = blind ? 0 : total / sum;
        }
      }
    }
  }
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the function below is of no namespace

AOTI_SERVED int32_t aotinative_cpu__scaled_dot_product_flash_attention_for_cpu(
    Handle query,
    Handle key,
    Handle value,
    double dropout,
    int32_t causal,
    Handle* mask,
    double* scale,
    Handle* output,
    Handle* log_sum_exp) {
  return served("_scaled_dot_product_flash_attention_for_cpu", [&] {
    check(*query, *key, *value);
    if (dropout != 0) {
      throw std::invalid_argument("attention with dropout");
    }
    Attention attention;
    attention.shape = {
        query->size(0),
        query->size(1),
        key->size(1),
        query->size(2),
        key->size(2),
        query->size(3),
        value->size(3),
    };
    const bool doubles = query->dtype() == ScalarType::kFloat64;
    if (!doubles) {
      attention.element = element_of(query->dtype());
    }
    attention.query = query->data();
    attention.query_strides = strides_of(*query);
    attention.key = key->data();
    attention.key_strides = strides_of(*key);
    attention.value = value->data();
    attention.value_strides = strides_of(*value);
    if (mask != nullptr && *mask != nullptr && (*mask)->numel() != 0) {
      const Tensor& given = **mask;
      const int64_t sizes[] = {query->size(0), query->size(1), query->size(2), key->size(2)};
      const std::vector<int64_t> strides = broadcast_strides(given, sizes);
      attention.mask = given.data();
      attention.mask_strides = {strides[0], strides[1], strides[2], strides[3]};
      if (!doubles) {
        attention.mask_kind = mask_of(given.dtype());
      } else if (given.dtype() != ScalarType::kFloat64) {
        throw std::invalid_argument("the mask of an attention in float64 is float64");
      }
    }
    attention.causal = causal != 0;
    const double factor =
        scale != nullptr ? *scale : 1 / std::sqrt(static_cast<double>(query->size(3)));
    attention.scale = static_cast<float>(factor);
    Tensor made = empty_like(*query);
    attention.output = made.data();
    attention.output_strides = strides_of(made);
    Tensor sums = make_log_sum_exp(*query);
    attention.log_sum_exp = sums.as<float>();
    attention.log_sum_exp_strides = {sums.stride(0), sums.stride(1), sums.stride(2)};
    if (doubles) {
      attend_to_doubles(attention, factor, sums);
    } else {
      attend(attention);
    }
    auto given_output = std::make_unique<Tensor>(std::move(made));
    hand_over(std::move(sums), log_sum_exp);
    *output = given_output.release();
  });
}
