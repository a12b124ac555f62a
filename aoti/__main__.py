"""``python -m aoti``: the command line."""

import sys

from aoti.cli.group import run

if __name__ == "__main__":
    sys.exit(run())
