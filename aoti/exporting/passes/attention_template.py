"""Inductor's C++ template of `flex_attention` for CPUs, with three of its faults mended.

The template computes scores in blocks of 16 columns. If the rest of the columns fills whole
vectors, the template writes a whole block all the same, over the memory behind the scores. And the
template allocates memory for a number of threads that is fixed at the export, while a run may use
more threads. It also calls C++ functions of libtorch for threads and memory, which the native
engine does not have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from torch._inductor import lowering  # noqa: F401 (first: it and the next import each other)
from torch._inductor.codegen import cpp_flex_attention_template as attention
from torch._inductor.codegen.cpp_micro_gemm import CppMicroGemmFP32Vec

_REST_FILLS_VECTORS = "N % Vectorized::size() == 0 && 24 * BLOCK_M > K"
_REST_FILLS_THE_BLOCK = "N == BLOCK_N && 24 * BLOCK_M > K"
_OF_THE_EXPORT = "int64_t num_thread = {{num_thread}};"
_OF_THE_RUN = "int64_t num_thread = omp_get_max_threads();"
_MEMORY = r"""
  const auto {{buffer_name}}_memory = std::make_unique_for_overwrite<{{buffer_dtype}}[]>(
      static_cast<size_t>({{buffer_size}}));
  {{buffer_dtype}}* {{buffer_name}} = {{buffer_name}}_memory.get();
"""
_HEADER = "{{template.header().getvalue()}}\n"
_PARALLEL = r"""#ifndef AOTI_PARALLEL_FOR  // a file may have several kernels
#define AOTI_PARALLEL_FOR
#include <omp.h>
#include <algorithm>
#include <memory>

template <class Work>
inline void aoti_parallel_for(int64_t begin, int64_t end, const Work& work) {
  #pragma omp parallel
  {
    const int64_t parts = omp_get_num_threads();
    const int64_t part = (end - begin + parts - 1) / parts;
    const int64_t first = begin + omp_get_thread_num() * part;
    if (first < end) {
      work(first, std::min(end, first + part));
    }
  }
}
#endif

"""
_CALLS = {
    "at::get_thread_num()": "omp_get_thread_num()",
    "at::get_num_threads()": "omp_get_max_threads()",
    "at::parallel_for(0, ": "aoti_parallel_for(0, ",
    ", 1, [&](int64_t begin, int64_t end)": ", [&](int64_t begin, int64_t end)",
}


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """Let Inductor use the mended template while it compiles in this process."""
    products = CppMicroGemmFP32Vec.TEMPLATE_KERNEL.replace(
        _REST_FILLS_VECTORS, _REST_FILLS_THE_BLOCK
    )
    start = attention.INIT_PARAMS.replace(_OF_THE_EXPORT, _OF_THE_RUN)
    start = start.replace(_HEADER, _HEADER + _PARALLEL, 1)
    templates = {
        name: _without_libtorch(getattr(attention, name))
        for name in ("FLEX_ATTENTION_TEMPLATE", "FLEX_DECODING_TEMPLATE")
        if hasattr(attention, name)
    }
    with (
        patch.object(CppMicroGemmFP32Vec, "TEMPLATE_KERNEL", products),
        patch.object(attention, "INIT_PARAMS", start),
        patch.object(attention, "ALLOCATE_BUFFER", _MEMORY),
        patch.dict(vars(attention), templates),
    ):
        yield


def _without_libtorch(template: str) -> str:
    for theirs, ours in _CALLS.items():
        template = template.replace(theirs, ours)
    return template
