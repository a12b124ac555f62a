"""Models that others wrote: packages equal eager on both engines, in a process without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from catalogue import entries  # noqa: E402
from steps import ENGINES, check, export, found  # noqa: E402

ENTRIES = entries()
FEW = [name for name, entry in ENTRIES.items() if entry.ci]


@pytest.fixture(scope="module")
def compared(zoo_packages, tmp_path_factory):
    """What the comparisons of the few found, by model and engine."""
    program = HERE / "check_one.py"
    comparisons = {}
    for name in FEW:
        directory = zoo_packages / name
        subprocess.run([sys.executable, program, directory], check=True)
        comparisons[name] = json.loads((directory / "check.json").read_text())
    return comparisons


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FEW)
def test_a_package_equals_eager_at_all_sizes(compared, name, engine):
    part = compared[name][engine]
    assert "error" not in part
    assert len(part["errors"]) == len(ENTRIES[name].sizes)
    assert max(part["errors"]) <= ENTRIES[name].tolerance


def test_the_zoo_has_many_models_of_many_kinds():
    assert len(ENTRIES) >= 60
    assert len({entry.kind for entry in ENTRIES.values()}) >= 12
    assert len(FEW) >= 10


@pytest.fixture(scope="module")
def exported():
    """All models, exported unless build/zoo has them."""
    export(list(ENTRIES), with_stock=False)


@pytest.mark.zoo
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", ENTRIES)
def test_every_model_equals_eager(exported, name):
    """The libtorch engine runs all models. The page says what the native engine does not have."""
    check(name)
    parts = found(name)
    for part in ("ours", "libtorch"):
        assert "error" not in parts[part], parts[part]["error"]
    for engine in ENGINES:
        assert max(parts[engine].get("errors", [0.0])) <= ENTRIES[name].tolerance
