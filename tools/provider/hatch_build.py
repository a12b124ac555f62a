"""Tags the wheel: any Python, this machine, and the glibc that torch's own wheels are for."""

import platform
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Tag(BuildHookInterface):
    """The hook that hatchling runs before it writes the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Name the tag."""
        build_data["tag"] = f"py3-none-manylinux_2_28_{platform.machine()}"
        build_data["pure_python"] = False
