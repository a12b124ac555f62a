"""Device names."""

from __future__ import annotations

import pytest

import aoti


@pytest.mark.parametrize(
    ("name", "type_", "index", "text"),
    [
        ("cpu", "cpu", None, "cpu"),
        ("cpu:0", "cpu", None, "cpu"),
        ("cuda", "cuda", None, "cuda"),
        ("cuda:0", "cuda", 0, "cuda:0"),
        ("cuda:12", "cuda", 12, "cuda:12"),
        ("xpu:1", "xpu", 1, "xpu:1"),
    ],
)
def test_names(name, type_, index, text):
    device = aoti.Device(name)
    assert (device.type, device.index, str(device)) == (type_, index, text)
    assert repr(device) == f"Device({text!r})"
    assert aoti.Device(device) == device == aoti.Device(text)
    assert len({device, aoti.Device(name)}) == 1


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda:", "cuda:-1", "cuda:a", "cuda:0:1", "CPU", "cpu:1", " cpu", None, 0]
)
def test_other_names_are_errors(name):
    with pytest.raises(aoti.DeviceError, match="is not a device"):
        aoti.Device(name)
