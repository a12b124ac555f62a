"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from aoti.engine.devices import devices
from aoti.machine.cpu import cpu_flags

_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, and how busy it was.

    Attributes
    ----------
    cpu : str
        The processor's name.
    architecture : str
        The architecture, with the vector instructions that matter.
    usable : int
        Logical processors that this process may use.
    threads : int
        Logical processors of the machine.
    cores : int or None
        Its cores; None if the system does not report them.
    virtual : bool
        Whether it is a virtual machine: others may share its cores.
    governor : str or None
        The CPU governor (``performance``, ``powersave``); None if the system does not report it.
    load : float
        The load average of the last minute, at the start.
    memory_bytes : int
        The size of its memory.
    system : str
        The operating system, and its C library.
    python : str
        The version of Python.
    """

    cpu: str
    architecture: str
    usable: int
    threads: int
    cores: int | None
    virtual: bool
    governor: str | None
    load: float
    memory_bytes: int
    system: str
    python: str

    def __str__(self) -> str:
        cores = f"{self.cores} cores, " if self.cores else ""
        of = "" if self.usable == self.threads else f" of {self.threads}"
        parts = [
            f"{self.cpu}{', virtual' if self.virtual else ''}",
            f"{cores}{self.usable}{of} threads",
            f"governor {self.governor}" if self.governor else "",
            f"load {self.load:.2f}",
            f"{self.memory_bytes / 2**30:.0f} GiB",
            self.system,
            f"Python {self.python}",
        ]
        return "; ".join(filter(None, parts))


def this_machine() -> Machine:
    """Describe the machine that this runs on."""
    (cpu,) = devices()
    core_lists = {
        text
        for path in _CPUS.glob("cpu[0-9]*/topology/thread_siblings_list")
        if (text := _read(path))
    }
    return Machine(
        cpu=re.sub(r"\s+", " ", cpu.name),
        architecture=cpu.architecture,
        usable=cpu.cores,
        threads=os.cpu_count() or cpu.cores,
        cores=len(core_lists) or None,
        virtual="hypervisor" in cpu_flags(),
        governor=_read(_CPUS / "cpu0/cpufreq/scaling_governor") or None,
        load=os.getloadavg()[0],
        memory_bytes=cpu.memory_bytes,
        system=f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        python=platform.python_version(),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
