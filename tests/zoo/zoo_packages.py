"""Export the models of the zoo that run at every push, all in one process.

usage: python tests/zoo/zoo_packages.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

from catalogue import entries, made
from export_models import ours


def main(directory: Path) -> None:
    for name, entry in entries().items():
        if entry.ci:
            (directory / name).mkdir(exist_ok=True)
            ours(entry, *made(entry), directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
