"""What Inductor may fuse into the kernel of a C++ template, with a fault mended.

The kernel writes the result of each following node in the order of the template's own result.
Inductor checks that for nodes that read this result, but not for those that read the result of
another node that is fused with them: one that changes the memory layout was written wrongly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

from torch._inductor.codegen import cpp

_supported: Any = cpp.template_fusion_with_epilogues_supported  # type: ignore[attr-defined]


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """Let Inductor check all nodes while it compiles in this process."""
    with patch.object(cpp, _supported.__name__, _all_supported):
        yield


def _all_supported(template: Any, epilogues: Sequence[Any]) -> tuple[bool, bool]:
    """Whether nodes can follow a template in its kernel, and whether they have its order."""
    known = {output.get_name() for output in template.get_outputs()}
    for node in (node for epilogue in epilogues for node in epilogue.get_nodes()):
        if node.node is not None:
            accesses = node.node.get_read_writes()
            read = {access.index for access in accesses.reads if access.name in known}
            if any(access.index != index for access in accesses.writes for index in read):
                return False, False
            known |= {output.get_name() for output in node.get_outputs()}
    supported: tuple[bool, bool] = _supported(template, epilogues)
    return supported
