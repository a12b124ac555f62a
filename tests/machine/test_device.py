"""Device names, and what this machine offers."""

from __future__ import annotations

import os

import pytest

import aoti
from aoti.machine.device import check_device


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
    with pytest.raises(aoti.DeviceError, match="is no device"):
        aoti.Device(name)


def test_the_cpu_is_listed():
    (cpu,) = aoti.devices()
    assert str(cpu.device) == "cpu"
    assert cpu.architecture.split()[0] == os.uname().machine
    assert cpu.cores == len(os.sched_getaffinity(0))
    assert cpu.memory_bytes > 2**28
    assert cpu.name


def test_the_cpu_works_and_others_are_told_apart():
    assert check_device("cpu") > 0
    with pytest.raises(aoti.DeviceError, match="cannot use cuda:0; it can use cpu"):
        check_device("cuda:0")
