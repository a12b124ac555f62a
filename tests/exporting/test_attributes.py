"""Attributes that a module's code assigns: they are named, and the module keeps what it had."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import aoti
from aoti.exporting.capture.module_source import Source
from aoti.exporting.capture.trace import trace

X = torch.ones(3, 4)


class Assigns(nn.Module):
    """Assigns what a function says, to itself, to a child, and to lists and dicts of both."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.child = nn.Linear(4, 4)
        self.tensor, self.nothing, self.number = torch.zeros(3, 4), None, 3
        self.listed, self.named = [X], {"a": [1]}
        self.register_buffer("buffer", torch.zeros(3, 4))

    def forward(self, x):
        return self.function(self, x)


def new(s, x):
    s.nothing = x * 2
    return s.nothing + 1


def of_a_child(s, x):
    s.child.seen = x.shape
    return s.child(x)


def counted(s, x):
    s.number += 1
    return x * s.number


def appended(s, x):
    s.listed.append(x)
    s.named["a"].append(x)
    s.named["b"] = x
    return x + 1


def the_same_again(s, x):
    s.number, s.nothing, s.tensor = 3, None, s.tensor
    s.listed.append(x)
    s.listed.pop()
    return x + 1


def a_function_of_itself(s, x):
    s.tensor = s.tensor + x
    return s.tensor * 2


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (new, ["nothing"]),
        (of_a_child, ["child.seen"]),
        (counted, ["number"]),
        (appended, ["listed", "named"]),
        (the_same_again, []),
        (a_function_of_itself, ["tensor"]),
    ],
)
def test_assigned_attributes_are_found_and_put_back(function, names):
    module = Assigns(function)
    before = [dict(vars(child)) for child in (module, module.child)]
    traced = trace(Source(module, (X,)), or_static=False, say=lambda _: None)
    assert sorted(traced.assigned) == names
    if function not in (appended, the_same_again):
        (place,) = traced.assigned.values()
        assert place.startswith("test_attributes.py:")
        assert f"in {function.__name__}: s." in place
    for child, attributes in zip((module, module.child), before, strict=True):
        assert vars(child).keys() == attributes.keys()
        assert all(vars(child)[name] is value for name, value in attributes.items())
    assert (module.listed, module.named) == ([X], {"a": [1]})


def test_an_attribute_that_the_module_reads_and_assigns_is_state(tmp_path):
    with pytest.raises(aoti.ExportError, match=r"the module changes its attributes \(tensor\)"):
        aoti.export(Assigns(a_function_of_itself).eval(), (X,), path=tmp_path / "m.pt2")


@pytest.fixture(scope="module")
def assigning(tmp_path_factory):
    """A package of a module that assigns attributes, and the warnings of its export."""
    path = tmp_path_factory.mktemp("assigning") / "m.pt2"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        aoti.export(Assigns(new).eval(), (X,), path=path)
    return path, [text for w in warned if "attribute" in (text := str(w.message))]


def test_an_export_warns_of_attributes_that_a_package_does_not_keep(assigning):
    path, (warning,) = assigning
    assert "assigns attributes: nothing (test_attributes.py:" in warning
    assert "s.nothing = x * 2" in warning
    with aoti.load(path) as model:
        assert model(X.numpy()).tolist() == [[3.0] * 4] * 3


# -- TorchScript -----------------------------------------------------------------------------------


def scripted():
    return torch.jit.script(nn.Linear(4, 4).eval())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            scripted,
            r"it is a TorchScript module \(torch.jit.script",
        ),
        (
            lambda: torch.jit.trace(nn.Linear(4, 4).eval(), X),
            "it is a TorchScript module",
        ),
        (
            lambda: nn.Sequential(nn.ReLU(), scripted()),
            "its submodule '1' is a TorchScript module",
        ),
    ],
)
def test_torchscript_is_refused_with_what_to_export_instead(make, words, tmp_path):
    with pytest.raises(aoti.ExportError, match=words) as caught:
        aoti.export(make(), (X,), path=tmp_path / "m.pt2")
    caught.match(r"\nexport the module that it was made from")
