"""What the checks of a call's arguments cost: with them and without, in turns.

usage: OMP_NUM_THREADS=1 python checks.py ONE_INPUT.pt2 MANY_INPUTS.pt2 [--rounds 300] [--json]

The same package is loaded twice, once with ``validate=False``. Arguments are
random, a dynamic size being the least that the model takes. Figures are medians over the rounds of
what a round measured; the least is given too, for a machine that others use. Checking index values
is no part of this: choose models that take none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial

from turns import in_turns, per_call

import aoti
from aoti.signature import example_inputs

CALLS = 1000  # a turn of some 10 ms: what else the machine does hits both alike


def measure(path: str, rounds: int) -> dict[str, float]:
    """The figures of one package."""
    with aoti.load(path) as checked, aoti.load(path, validate=False) as trusted:
        arrays = example_inputs.random(
            checked.signature, example_inputs.least_sizes(checked.signature)
        )
        contestants = {
            name: partial(per_call, partial(model.run, arrays), CALLS)
            for name, model in (("checked", checked), ("trusted", trusted))
        }
        for contestant in contestants.values():
            contestant()
        times = in_turns(contestants, rounds)
    with_checks, without = times["checked"], times["trusted"]
    return {
        "inputs": len(arrays),
        "checked": statistics.median(with_checks),
        "unchecked": statistics.median(without),
        "checks": statistics.median(a - b for a, b in zip(with_checks, without, strict=True)),
        "least checks": min(with_checks) - min(without),
    }


def compare(one: str, many: str, rounds: int) -> dict[str, dict[str, float]]:
    """The figures of both packages, and what each further input costs."""
    single, several = measure(one, rounds), measure(many, rounds)
    further = several["inputs"] - single["inputs"]
    each = {name: (several[name] - single[name]) / further for name in ("checks", "least checks")}
    return {"one": single, "many": several, "each further input": each}


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("one")
    parser.add_argument("many")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = compare(options.one, options.many, options.rounds)
    if options.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return
    print(
        f"  {'us a call':<20}{'checked':>10}{'unchecked':>11}{'ratio':>8}{'checks':>9}{'least':>8}"
    )
    for name in ("one", "many"):
        row = figures[name]
        print(
            f"  {row['inputs']:>3} inputs{row['checked']:>20.2f}{row['unchecked']:>11.2f}"
            f"{row['checked'] / row['unchecked']:>8.2f}{row['checks']:>9.3f}"
            f"{row['least checks']:>8.3f}"
        )
    each = figures["each further input"]
    print(f"  each further input{each['checks']:>40.3f}{each['least checks']:>8.3f}")


if __name__ == "__main__":
    main()
