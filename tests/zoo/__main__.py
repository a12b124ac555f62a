"""Export models of many kinds, compare them with eager PyTorch, and write docs/zoo.md.

usage: python tests/zoo [--list] [--no-stock] [--page] [NAME...]

An export has a time limit. What is in build/zoo is not done again:
remove a model's folder there to repeat it. The page is written if no names are given.
"""

from __future__ import annotations

import argparse

from catalogue import entries
from page import write_page
from steps import check, export, line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="print the names of all models")
    parser.add_argument("--no-stock", action="store_true", help="leave out PyTorch's own export")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args()
    known = entries()
    if options.list:
        print(*known, sep="\n")
        return
    if not options.page:
        names = options.names or list(known)
        export(names, with_stock=not options.no_stock)
        for name in names:
            check(name)
            print(line(name))
    if not options.names:
        write_page(known)


if __name__ == "__main__":
    main()
