#include <aoti/native/kernels/gemm/gemm.h>
#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/matmul.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <complex>
#include <stdexcept>
#include <vector>

namespace aoti::native {

namespace {

// The products of a batch, in elements: `c` is m x n, `a` is m x k, `b` is k x n.
struct Problem {
  int64_t batch, m, n, k;
  int64_t a_batch, a_row, a_column;
  int64_t b_batch, b_row, b_column;
  int64_t c_batch, c_row, c_column;
};

// A dimension, counted from the end; 1 and 0 for one that a tensor does not have.
int64_t size_at(const Tensor& tensor, int64_t back) {
  return back <= tensor.rank() ? tensor.size(-back) : 1;
}

int64_t stride_at(const Tensor& tensor, int64_t back) {
  return back <= tensor.rank() ? tensor.stride(-back) : 0;
}

Problem describe(const Tensor& out, const Tensor& one, const Tensor& other) {
  const bool ranks = one.rank() == out.rank() && other.rank() == out.rank() &&
                     (out.rank() == 2 || out.rank() == 3);
  if (!ranks || one.dtype() != out.dtype() || other.dtype() != out.dtype()) {
    throw std::invalid_argument("a matrix product of tensors that do not fit");
  }
  const Problem problem = {
      size_at(out, 3),
      out.size(-2),
      out.size(-1),
      one.size(-1),
      stride_at(one, 3),
      one.stride(-2),
      one.stride(-1),
      stride_at(other, 3),
      other.stride(-2),
      other.stride(-1),
      stride_at(out, 3),
      out.stride(-2),
      out.stride(-1),
  };
  const bool fits = one.size(-2) == problem.m && other.size(-2) == problem.k &&
                    other.size(-1) == problem.n && size_at(one, 3) == problem.batch &&
                    size_at(other, 3) == problem.batch;
  if (!fits) {
    throw std::invalid_argument("a matrix product of tensors whose sizes do not fit");
  }
  return problem;
}

// c.T = b.T @ a.T
Problem transposed(const Problem& p) {
  return {
      p.batch,
      p.n,
      p.m,
      p.k,
      p.b_batch,
      p.b_column,
      p.b_row,
      p.a_batch,
      p.a_column,
      p.a_row,
      p.c_batch,
      p.c_column,
      p.c_row,
  };
}

void multiply_floats(
    const Problem& p, const float* a, const float* b, float beta, float alpha, float* c) {
  gemm_batched(
      p.batch,
      p.m,
      p.n,
      p.k,
      alpha,
      {a, p.a_row, p.a_column},
      p.a_batch,
      {b, p.b_row, p.b_column},
      p.b_batch,
      beta,
      c,
      p.c_batch,
      p.c_row);
}

// Of any dtype, row by row. `Sum` is what products are added up in.
template <class Element, class Sum>
void multiply_plainly(
    const Problem& p, const Tensor& one, const Tensor& other, Sum beta, Sum alpha, Tensor& out) {
  const auto* const a = one.as<Element>();
  const auto* const b = other.as<Element>();
  auto* const c = out.as<Element>();
  for_parts(p.batch * p.m, p.n * p.k, [&](int64_t begin, int64_t end) {
    std::vector<Sum> sums(static_cast<std::size_t>(p.n));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t z = row / p.m, i = row % p.m;
      std::fill(sums.begin(), sums.end(), Sum{});
      for (int64_t l = 0; l < p.k; ++l) {
        const Sum left = static_cast<Sum>(a[z * p.a_batch + i * p.a_row + l * p.a_column]);
        const Element* const right = b + z * p.b_batch + l * p.b_row;
        for (int64_t j = 0; j < p.n; ++j) {
          sums[static_cast<std::size_t>(j)] += left * static_cast<Sum>(right[j * p.b_column]);
        }
      }
      Element* const to = c + z * p.c_batch + i * p.c_row;
      for (int64_t j = 0; j < p.n; ++j) {
        Element& value = to[j * p.c_column];
        const Sum before = beta == Sum{} ? Sum{} : beta * static_cast<Sum>(value);
        value = static_cast<Element>(alpha * sums[static_cast<std::size_t>(j)] + before);
      }
    }
  });
}

void multiply(
    const Problem& p,
    const Tensor& one,
    const Tensor& other,
    double beta,
    double alpha,
    Tensor& out) {
  const ScalarType type = out.dtype();
  const auto plainly = [&]<class Element>(Element) {
    multiply_plainly<Element, Element>(
        p, one, other, static_cast<Element>(beta), static_cast<Element>(alpha), out);
  };
  if (type == ScalarType::kFloat64) {
    plainly(double{});
  } else if (is_complex(type)) {
    with_complex(type, plainly);
  } else {
    with_integer(type, [&]<class Element>(Element) {  // sums wrap around
      const auto scale = [](double value) {
        return static_cast<uint64_t>(static_cast<int64_t>(value));
      };
      multiply_plainly<Element, uint64_t>(p, one, other, scale(beta), scale(alpha), out);
    });
  }
}

}  // namespace

void matmul(
    Tensor& out,
    const Tensor* self,
    const Tensor& one,
    const Tensor& other,
    double beta,
    double alpha) {
  Problem problem = describe(out, one, other);
  if (out.numel() == 0) {
    return;
  }
  if (out.dtype() == ScalarType::kBFloat16 || out.dtype() == ScalarType::kFloat16) {
    Tensor wide = Tensor::empty(ScalarType::kFloat32, out.sizes_list());
    if (beta != 0 && self != nullptr) {
      convert(wide, *self);
    }
    matmul(
        wide,
        &wide,
        converted(one, ScalarType::kFloat32),
        converted(other, ScalarType::kFloat32),
        beta,
        alpha);
    return convert(out, wide);
  }
  const bool transposes = problem.c_column != 1 && problem.c_row == 1;
  if (out.dtype() == ScalarType::kFloat32 && problem.c_column != 1 && !transposes &&
      problem.n != 1) {
    Tensor dense = Tensor::empty(out.dtype(), out.sizes_list());
    matmul(dense, self, one, other, beta, alpha);
    return copy(out, dense);
  }
  if (beta != 0 && self != nullptr && self->data() != out.data()) {
    copy(out, *self);
  }
  if (out.dtype() != ScalarType::kFloat32) {
    return multiply(problem, one, other, beta, alpha, out);
  }
  const auto* a = one.as<const float>();
  const auto* b = other.as<const float>();
  if (transposes) {
    problem = transposed(problem);
    std::swap(a, b);
  }
  multiply_floats(
      problem, a, b, static_cast<float>(beta), static_cast<float>(alpha), out.as<float>());
}

namespace cblas {

// ATen's brgemm of its cpublas, which templates of compiled code call for their blocks.
__attribute__((visibility("default"))) void brgemm(
    int64_t m,
    int64_t n,
    int64_t k,
    int64_t lda,
    int64_t ldb,
    int64_t ldc,
    bool add,
    const float* a,
    const float* b,
    float* c,
    bool is_vnni) {
  static_cast<void>(is_vnni);  // a layout of 16-bit matrices
  native::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c);
}

__attribute__((visibility("default"))) void brgemm_release(bool) {}

}  // namespace cblas

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t aotinative_cpu_addmm_out(
    Handle out, Handle self, Handle one, Handle other, double beta, double alpha) {
  return served("addmm", [&] { matmul(*out, self, *one, *other, beta, alpha); });
}

AOTI_SERVED int32_t aotinative_cpu_mm_out(Handle out, Handle one, Handle other) {
  return served("mm", [&] { matmul(*out, nullptr, *one, *other, 0, 1); });
}

AOTI_SERVED int32_t aotinative_cpu_bmm_out(Handle out, Handle one, Handle other) {
  return served("bmm", [&] { matmul(*out, nullptr, *one, *other, 0, 1); });
}

AOTI_SERVED int32_t aotinative_cpu_baddbmm_out(
    Handle out, Handle self, Handle one, Handle other, double beta, double alpha) {
  return served("baddbmm", [&] { matmul(*out, self, *one, *other, beta, alpha); });
}
