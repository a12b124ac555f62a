"""What the tests of arrays share."""

from __future__ import annotations

import numpy as np
import pytest

import aoti


@pytest.fixture(scope="session")
def pointer():
    """The address of an array's first element, whatever its library."""

    def address(value):
        if isinstance(value, np.ndarray):
            return value.ctypes.data
        return value.data_ptr if isinstance(value, aoti.Tensor) else value.data_ptr()

    return address
