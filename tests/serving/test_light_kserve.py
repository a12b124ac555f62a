"""KServe without what its server does not use."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    not find_spec("kserve"), reason="needs a server: pip install 'aoti-runtime[serve]'"
)


def test_pandas_is_imported_when_it_is_used(run_python):
    """Also by KServe itself, which got its name before."""
    program = """
import sys
from aoti.serving.light_kserve import kserve
assert "pandas.core" not in sys.modules
tensor = kserve.InferInput("x", [2], "INT64", [1, 2])
frame = kserve.InferRequest("m", [tensor]).as_dataframe()
import pandas
assert isinstance(frame, pandas.DataFrame)
assert list(frame["x"]) == [1, 2]
"""
    run_python(program)
