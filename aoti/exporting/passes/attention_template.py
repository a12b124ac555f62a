"""Inductor's C++ template of `flex_attention` for CPUs, with two of its faults mended.

The template computes scores in blocks of 16 columns. If the rest of the columns fills whole
vectors, the template writes a whole block all the same, over the memory behind the scores. And the
template allocates memory for a number of threads that is fixed at the export, while a run may use
more threads.
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
_OF_THE_RUN = "int64_t num_thread = at::get_num_threads();"


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """Let Inductor use the mended template while it compiles in this process."""
    products = CppMicroGemmFP32Vec.TEMPLATE_KERNEL.replace(
        _REST_FILLS_VECTORS, _REST_FILLS_THE_BLOCK
    )
    start = attention.INIT_PARAMS.replace(_OF_THE_EXPORT, _OF_THE_RUN)
    with (
        patch.object(CppMicroGemmFP32Vec, "TEMPLATE_KERNEL", products),
        patch.object(attention, "INIT_PARAMS", start),
    ):
        yield
