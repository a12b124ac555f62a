"""The CPU of this computer: its vector instructions, cores and memory."""

from __future__ import annotations

import functools
import os
import re

from aoti.machine.device import Device, DeviceInfo

# Sets of vector instructions: the names that packages record in AOTI_CPU_ISA, and the flags of
# /proc/cpuinfo for what the compiler then uses (`_arch_flags` in torch/_inductor/cpu_vec_isa.py).
# The first flag of each set also describes a CPU. VSX and ZVECTOR come with their machines.
INSTRUCTION_SETS = {
    "AVX2": ("avx2", "fma", "f16c"),
    "AVX512": ("avx512f", "avx512dq", "avx512vl", "avx512bw", "fma"),
    "AVX512_VNNI": ("avx512_vnni",),
    "AVX512_BF16": ("avx512_bf16",),
    "AMX_TILE": ("amx_tile", "amx_bf16", "amx_int8"),
    "ASIMD": ("asimd",),
    "SVE": ("sve",),
    "VSX": (),
    "ZVECTOR": (),
    "INVALID_VEC_ISA": (),  # compiled without vector instructions
}


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's features, as /proc/cpuinfo names them; empty where the system does not list them.

    The kernel reads them by CPUID or from the hardware's registers, and leaves out what it masked:
    a register set that the kernel does not save must not be used, whatever CPUID says.
    """
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def cpu_info() -> DeviceInfo:
    """A description of the CPU. Its architecture is the machine and its vector instructions."""
    match = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    vectors = [flags[0] for flags in INSTRUCTION_SETS.values() if {*flags[:1]} & cpu_flags()]
    return DeviceInfo(
        device=Device("cpu"),
        name=match[1].strip() if match else os.uname().machine,
        architecture=" ".join([os.uname().machine, *vectors]),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_free_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"),
    )


def _cpuinfo() -> str:
    """The part of /proc/cpuinfo on the first processors: the whole takes long on large machines."""
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(8192).decode("utf-8", "replace")
    except OSError:
        return ""
