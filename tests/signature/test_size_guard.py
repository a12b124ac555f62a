"""Conditions on sizes: what they may contain, when they hold, and sizes for which they do."""

from __future__ import annotations

import pytest

from aoti.signature.size_guard import SizeGuard, first_broken, sizes_that_break, sizes_that_hold

HOLD = {
    "n % 2 == 0": ({"n": 8}, {"n": 7}),
    "a > b": ({"a": 3, "b": 2}, {"a": 2, "b": 2}),
    "a * b > 30": ({"a": 4, "b": 8}, {"a": 5, "b": 6}),
    "n // 4 != 1": ({"n": 8}, {"n": 7}),
    "4 * (n // 4) == n": ({"n": 8}, {"n": 9}),
    "-n + 3 < 0": ({"n": 4}, {"n": 3}),
    "min(a, b) <= 4": ({"a": 9, "b": 4}, {"a": 9, "b": 5}),
    "max(1, n // 2) != 1": ({"n": 4}, {"n": 3}),
    "math.trunc(0.5 * float(n)) >= 2": ({"n": 4}, {"n": 3}),
    "math.floor(n / 3) == 2 and n != 7": ({"n": 8}, {"n": 7}),
    "not n == 3 or m == 1": ({"n": 3, "m": 1}, {"n": 3, "m": 2}),
    "math.ceil(math.sqrt(n)) * 1.0 == 3.0": ({"n": 9}, {"n": 10}),
    "n ** 2 <= 81": ({"n": 9}, {"n": 10}),
    "(n & 1) == 0": ({"n": 2}, {"n": 3}),
    "min == 3": ({"min": 3}, {"min": 4}),  # a size may be named as a function is
    "min(min, 5) == 5": ({"min": 7}, {"min": 4}),
}
REFUSED = [
    *("", "n ==", "n = 3", "n == 'a'", "lambda: n", "[n]", "n if n else n", "(n := 3)"),
    *("open('x')", "n.bit_length() > 3", "__import__('os')", "math.gcd(n, 2) == 2", "eval(n)"),
    *("2 ** n > 1", "n ** 1000000 > 1", "round(n, ndigits=2) > 1", "n is 3", "n << 100 > 1"),
    "(" * 5000 + "n" + ")" * 5000,
    " + ".join(["n"] * 2000),
    "n" * 20_000,
]


@pytest.mark.parametrize("text", HOLD)
def test_a_guard_holds_or_does_not(text):
    yes, no = HOLD[text]
    guard = SizeGuard.parse(text)
    assert guard.symbols == yes.keys()
    assert guard.holds(yes)
    assert not guard.holds(no)
    assert first_broken(["1 == 1", text], no) == text
    assert first_broken(["1 == 1", text], yes) is None


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_guard_is_refused(text):
    with pytest.raises(ValueError, match="condition"):
        SizeGuard.parse(text)


@pytest.mark.parametrize("text", ["10 // n > 0", "n % 0 == 1", "math.sqrt(n - 9) > 0"])
def test_a_guard_that_cannot_be_computed_does_not_hold(text):
    assert not SizeGuard.parse(text).holds({"n": 0})


def test_sizes_are_found_inside_of_their_ranges():
    guards = ["n % 7 == 0", "m > n"]
    ranges = {"n": (2, 20), "m": (2, None)}
    found = sizes_that_hold(guards, ranges, {"n": 2, "m": 2, "other": 5})
    assert found is not None
    assert (found["n"], found["other"]) == (7, 5)
    assert found["m"] > 7
    assert sizes_that_hold(["n == 30"], {"n": (2, 20)}, {"n": 2}) is None
    assert sizes_that_hold([], {}, {"n": 2}) == {"n": 2}


def test_sizes_that_break_a_guard_are_found_beside_or_below_the_start():
    assert sizes_that_break("n % 2 == 0", {"n": (2, None)}, {"n": 8}) == {"n": 9}
    assert sizes_that_break("n > 5", {"n": (2, None)}, {"n": 8}) == {"n": 2}
    assert sizes_that_break("n > 1", {"n": (2, None)}, {"n": 8}) is None
