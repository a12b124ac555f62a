from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conformance import Conformance


@pytest.fixture
def compare(request):
    """What a test compares with; its deviations fail the test when it has ended."""
    conformance = Conformance(request.node.name)
    yield conformance
    conformance.finish()


def pytest_terminal_summary(terminalreporter):
    if Conformance.total:
        terminalreporter.line(f"{Conformance.total} calls were compared with libtorch's")
