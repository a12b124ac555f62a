"""Documents of a model are read once, and questions about a package write nothing."""

from __future__ import annotations

import tempfile
from collections import Counter

import pytest

from aoti import Package
from aoti.package.archive import Zip
from aoti.package.model_files import ModelFiles


def test_a_document_is_read_once(packages, monkeypatch):
    read = Counter()
    original = Zip.open_file

    def open_file(self, name):
        read[name.rpartition("/")[2].partition(".")[2]] += 1
        return original(self, name)

    monkeypatch.setattr(Zip, "open_file", open_file)
    with Package(packages / "stock.pt2") as package:
        for _ in range(2):
            package.metadata()
            package.signature()
            package.source()
            package.num_constants()
            assert package.model().constants is not None
        assert package.model().signature is package.signature()
    assert read["wrapper.cpp"] == read["wrapper_metadata.json"] == 1


def test_metadata_can_be_changed_by_its_caller(packages):
    with Package(packages / "mlp.pt2") as package:
        package.metadata().clear()
        assert package.metadata()["AOTI_DEVICE_KEY"] == "cpu"


def test_where_weights_are_is_answered_without_writing(packages, monkeypatch):
    content = (packages / "stock.pt2").read_bytes()
    with Package(content) as package:  # has to be unpacked
        assert package.weights() == "code"
    monkeypatch.setattr(tempfile, "TemporaryDirectory", None)
    with Package(packages / "stock.pt2") as package:
        assert package.weights() == "code"
    with Package(packages / "weights_none.pt2") as package:
        assert package.weights() == "missing"


@pytest.mark.parametrize(
    ("endings", "found"), [((".b", ".a"), "m/y.b"), ((".a",), "m/x.a"), ((".c",), None)]
)
def test_earlier_endings_are_preferred(endings, found):
    files = dict.fromkeys(("m/x.a", "m/y.b", "m/z.b"), 0)
    assert ModelFiles("p", "m", files, lambda name: name.encode()).find(*endings) == found
