"""No state of the cache runs other code, hangs, or makes every load fail."""

from __future__ import annotations

import os

import cache_states
import pytest


@pytest.mark.parametrize("row", [f"cache_states/{row.id}" for row in cache_states.ROWS])
def test_a_spoiled_cache_gives_the_right_model_or_an_error(passes, row):
    if "another user" in row and os.geteuid():
        pytest.skip("needs root, to give files away")
    passes(row)
