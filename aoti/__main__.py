"""``python -m aoti``: the command line."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current directory: a torch/ in it is not the installed torch
    from aoti.cli.group import run

    sys.exit(run())
