"""KServe's server, imported without what a server of models does not use.

Modules get KServe from here, and never import it themselves: then none is faster.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any
from unittest import mock

__all__ = ["kserve"]


@contextmanager
def _later(name: str) -> Iterator[None]:
    """Import a module when a name of it is first used after this context.

    Within the context, its names are `Any`: there, KServe has them in annotations.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        yield
        return
    assert spec.loader is not None
    module, execute, importing = module_from_spec(spec), spec.loader.exec_module, True

    class Later(ModuleType):
        def __getattr__(self, attribute: str) -> Any:
            if importing:
                return Any
            module.__class__ = ModuleType
            execute(module)
            return getattr(module, attribute)

    module.__class__ = Later
    sys.modules[name] = module
    yield
    importing = False


# KServe imports pandas, a third of all that it imports, for models that take data frames; and it
# parses the arguments of the process.
with _later("pandas"), mock.patch.object(sys, "argv", sys.argv[:1]):
    import kserve
    import kserve.model_server
    import kserve.protocol.rest.v2_datamodels
