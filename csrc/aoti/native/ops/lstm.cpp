// A layer of an LSTM in one direction, as ATen's mkldnn_rnn_layer computes it for weights that
// oneDNN has not packed (aten/src/ATen/native/mkldnn/RNN.cpp).

#include <aoti/native/kernels/gemm/gemm.h>
#include <aoti/native/kernels/math/math.h>
#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <stdexcept>

namespace aoti::native {

namespace {

constexpr int64_t kLstm = 2;  // ideep's rnn_kind::LSTM

// Tensors of float32 in C order. `input_bias` and `hidden_bias` are not read without biases.
struct Layer {
  const Tensor& input;  // (steps, batch, inputs)
  const Tensor& input_weight;
  const Tensor& hidden_weight;
  const Tensor* input_bias;
  const Tensor* hidden_bias;
  bool reverse;

  int64_t steps() const { return input.size(0); }
  int64_t batch() const { return input.size(1); }
  int64_t inputs() const { return input.size(2); }
  int64_t hidden() const { return hidden_weight.size(1); }
  int64_t gates() const { return 4 * hidden(); }
};

void sigmoid(float* x, int64_t n) noexcept {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    x[i] = -x[i];
  }
  exp_array(x, x, n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    x[i] = 1 / (1 + x[i]);
  }
}

// The next state of one row. The gates lie behind each other: input, forget, cell, output.
void advance(int64_t n, float* gates, float* cell, float* hidden) noexcept {
  float* const keep = gates + n;
  float* const candidate = gates + 2 * n;
  float* const show = gates + 3 * n;
  sigmoid(gates, 2 * n);
  tanh_array(candidate, candidate, n);
  sigmoid(show, n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    cell[i] = keep[i] * cell[i] + gates[i] * candidate[i];
  }
  tanh_array(cell, hidden, n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    hidden[i] *= show[i];
  }
}

// What the inputs of all steps give to the gates, and the biases.
Tensor gates_of(const Layer& layer) {
  const int64_t rows = layer.steps() * layer.batch(), gates = layer.gates();
  const int64_t sizes[] = {rows, gates};
  Tensor made = Tensor::empty(ScalarType::kFloat32, sizes);
  auto* const to = made.as<float>();
  if (layer.input_bias != nullptr && rows > 0) {
    const auto* const one = layer.input_bias->as<const float>();
    const auto* const other = layer.hidden_bias->as<const float>();
    std::transform(one, one + gates, other, to, std::plus<>());
    for (int64_t row = 1; row < rows; ++row) {
      std::memcpy(to + row * gates, to, static_cast<std::size_t>(gates) * sizeof(float));
    }
  }
  const int64_t inputs = layer.inputs();
  gemm(
      rows,
      gates,
      inputs,
      1,
      {layer.input.as<const float>(), inputs, 1},
      {layer.input_weight.as<const float>(), 1, inputs},
      layer.input_bias == nullptr ? 0.0F : 1.0F,
      to,
      gates);
  return made;
}

// The weights of the hidden state as a product of few rows reads them best: as they are, or with
// the outputs innermost, which is worth a copy if there are many steps.
Matrix recurrent(const Layer& layer, Tensor& copied) {
  const int64_t hidden = layer.hidden(), gates = layer.gates();
  const auto* const weight = layer.hidden_weight.as<const float>();
  constexpr int64_t kFewSteps = 24, kFewRows = 4;
  if (layer.steps() < kFewSteps && layer.batch() <= kFewRows) {
    return {weight, 1, hidden};
  }
  const int64_t sizes[] = {hidden, gates}, strides[] = {1, hidden};
  copied = Tensor::empty(ScalarType::kFloat32, sizes);
  const Storage& storage = layer.hidden_weight.storage();
  copy(copied, Tensor(storage, ScalarType::kFloat32, sizes, strides, layer.hidden_weight.offset()));
  return {copied.as<const float>(), gates, 1};
}

// `output` gets the hidden state of each step; `hidden` and `cell`, the first states, the last.
void run(const Layer& layer, Tensor& output, Tensor& hidden, Tensor& cell) {
  const int64_t batch = layer.batch(), size = layer.hidden(), gates = layer.gates();
  Tensor copied;
  const Matrix weight = recurrent(layer, copied);
  Tensor made = gates_of(layer);
  const float* before = hidden.as<const float>();
  for (int64_t step = 0; step < layer.steps(); ++step) {
    const int64_t at = layer.reverse ? layer.steps() - 1 - step : step;
    float* const now = made.as<float>() + at * batch * gates;
    float* const shown = output.as<float>() + at * batch * size;
    gemm(batch, gates, size, 1, {before, size, 1}, weight, 1, now, gates);
    for (int64_t row = 0; row < batch; ++row) {
      advance(size, now + row * gates, cell.as<float>() + row * size, shown + row * size);
    }
    before = shown;
  }
  if (before != hidden.as<const float>()) {
    std::memcpy(hidden.data(), before, static_cast<std::size_t>(batch * size) * sizeof(float));
  }
}

bool has_sizes(const Tensor& tensor, std::initializer_list<int64_t> sizes) {
  const Extents found = tensor.sizes_list();
  return std::equal(found.begin(), found.end(), sizes.begin(), sizes.end());
}

// A tensor in C order and float32: the same one where it is so already.
Tensor settled(const Tensor& tensor) { return in_c_order(converted(tensor, ScalarType::kFloat32)); }

// A copy in C order and float32, which will change.
Tensor state_of(const Tensor& tensor) {
  Tensor made = Tensor::empty(ScalarType::kFloat32, tensor.sizes_list());
  convert(made, tensor);
  return made;
}

struct States {
  Tensor output, hidden, cell;
};

States lstm(
    const Tensor& input,
    const Tensor& input_weight,
    const Tensor& hidden_weight,
    const Tensor& input_bias,
    const Tensor& hidden_bias,
    const Tensor& hidden,
    const Tensor& cell,
    bool reverse,
    bool biased) {
  const bool ranks = input.rank() == 3 && input_weight.rank() == 2 && hidden_weight.rank() == 2;
  if (!ranks) {
    throw std::invalid_argument("inputs and weights of an LSTM that do not fit");
  }
  const int64_t batch = input.size(1), size = hidden_weight.size(1);
  const bool fits =
      has_sizes(input_weight, {4 * size, input.size(2)}) &&
      has_sizes(hidden_weight, {4 * size, size}) && has_sizes(hidden, {1, batch, size}) &&
      has_sizes(cell, {1, batch, size}) &&
      (!biased || (has_sizes(input_bias, {4 * size}) && has_sizes(hidden_bias, {4 * size})));
  if (!fits) {
    throw std::invalid_argument("inputs and weights of an LSTM whose sizes do not fit");
  }
  const ScalarType type = input.dtype();
  if (type != ScalarType::kFloat32 && type != ScalarType::kBFloat16 &&
      type != ScalarType::kFloat16) {
    refuse_dtype(type);
  }
  const Tensor x = settled(input), of_input = settled(input_weight);
  const Tensor of_hidden = settled(hidden_weight);
  const Tensor one = biased ? settled(input_bias) : Tensor();
  const Tensor other = biased ? settled(hidden_bias) : Tensor();
  States made;
  const int64_t sizes[] = {input.size(0), batch, size};
  made.output = Tensor::empty(ScalarType::kFloat32, sizes);
  made.hidden = state_of(hidden);
  made.cell = state_of(cell);
  const Layer layer = {
      x, of_input, of_hidden, biased ? &one : nullptr, biased ? &other : nullptr, reverse};
  run(layer, made.output, made.hidden, made.cell);
  for (Tensor* const tensor : {&made.output, &made.hidden, &made.cell}) {
    *tensor = converted(*tensor, type);
  }
  return made;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t aotinative_cpu_mkldnn_rnn_layer(
    Handle input,
    Handle input_weight,
    Handle hidden_weight,
    Handle input_bias,
    Handle hidden_bias,
    Handle hidden,
    Handle cell,
    int32_t reverse,
    const int64_t* batch_sizes,
    int64_t batch_sizes_count,
    int64_t mode,
    int64_t hidden_size,
    int64_t num_layers,
    int32_t has_biases,
    int32_t bidirectional,
    int32_t batch_first,
    int32_t train,
    Handle* output,
    Handle* last_hidden,
    Handle* last_cell,
    Handle* workspace) {
  static_cast<void>(batch_sizes);
  static_cast<void>(hidden_size);  // as the weights have it
  return served("mkldnn_rnn_layer", [&] {
    const bool plain = mode == kLstm && num_layers == 1 && batch_sizes_count == 0 &&
                       bidirectional == 0 && batch_first == 0 && train == 0;
    if (!plain) {
      throw std::invalid_argument("only one layer of an LSTM in one direction is there");
    }
    States made = lstm(
        *input,
        *input_weight,
        *hidden_weight,
        *input_bias,
        *hidden_bias,
        *hidden,
        *cell,
        reverse != 0,
        has_biases != 0);
    hand_over(std::move(made.output), output);
    hand_over(std::move(made.hidden), last_hidden);
    hand_over(std::move(made.cell), last_cell);
    const int64_t none[] = {0};  // it is for training
    hand_over(Tensor::empty(ScalarType::kUInt8, none), workspace);
  });
}
