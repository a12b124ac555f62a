"""No file hurts: each is refused in words that help, and the next model loads and answers."""

from __future__ import annotations

import files_code
import files_documents
import files_paths
import files_zip
import pytest

TABLES = (files_code, files_documents, files_paths, files_zip)


@pytest.mark.parametrize("row", [f"{t.__name__}/{row.id}" for t in TABLES for row in t.ROWS])
def test_a_bad_file_is_refused_and_leaves_nothing(passes, row):
    passes(row)
