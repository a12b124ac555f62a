"""Parts of messages."""

from __future__ import annotations

import pytest

from aoti._text import assignments, listing, printable, quoted


def test_control_characters_are_written_out():
    assert printable("a\x1b[31m\nb\u202e") == "a\\x1b[31m\\nb\\u202e"


@pytest.mark.parametrize(
    ("text", "right"), [("a b", "a b"), ("", "''"), ("a\n", "'a\\n'"), ("x" * 61, "x" * 60 + "...")]
)
def test_text_of_a_file_is_short_and_printable(text, right):
    assert quoted(text) == right


def test_many_names_are_counted():
    assert listing(["a", "b"]) == "a, b"
    assert listing(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_values_stand_beside_their_names():
    assert assignments({"batch": 3, "length": 5}) == "batch=3, length=5"
    assert assignments({}) == ""
