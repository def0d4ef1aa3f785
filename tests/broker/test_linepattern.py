"""Patterns of lines: what is searched without removing colours, or as bytes, finds the same as in prepared lines."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.broker.lifecycle import linepattern
from airunner.broker.lifecycle.linepattern import SPANNING_CHARS_MAX, LinePattern

TEXTS = (b"a", b"b", b"A", b"3", b"1m", b"m", b"[", b"\n", b"\r", b" ", "é".encode(), b"\xff", b"\xc3", b"\x7f", b"K")
COLOURS = (b"\x1b[31m", b"\x1b[0m", b"\x1b[K", b"\x1b[ q", b"\x1b[1;2 !@", b"\x1b[[")
TORN = (b"\x1b", b"\x1b[", b"\x1b[3", b"\x1b[ ")
PLAIN = ("a", "ab", "31", "31m", "[", "m", "\x1b", "\x1b[3", "a.b", " ", "a b", "a\n", "\n", "\t", "\0", "(a", "b\\")
NAMED = ("a+b", "[ab]+$", r"^\d|\s$", r"\bab\b", "[0-9]{2}m", r"a\.b", "(?i)k", "a|31", "^$", "[a-]", "(?:ab)*m")
ANY = (
    ".",
    "a.b",
    "[^a]b",
    r"\Da",
    r"\W",
    r"\S$",
    r"\BA",
    "[[:^alpha:]]a",
    r"[\D]",
    r"\x{dcff}",
    r"\pL",
    r"\C",
    "[]a]",
    "é",
)

texts = st.lists(st.sampled_from((*TEXTS, *COLOURS, *TORN)), max_size=24).map(lambda pieces: b"".join(pieces) + b"\n")


def is_found(pattern: LinePattern, lines: bytes) -> bool:
    """Return whether a line matches, of whole lines as they were before."""
    return pattern.find(pattern.prepared(lines), 0) >= 0


@given(lines=texts, pattern=st.sampled_from(PLAIN), ignore_case=st.booleans())
def test_plain_text_that_is_absent_with_colours_is_absent_without(
    lines: bytes, pattern: str, *, ignore_case: bool
) -> None:
    plain = LinePattern(pattern, regex=False, ignore_case=ignore_case)
    assert not (plain.is_absent(lines) and is_found(plain, lines))


@pytest.mark.parametrize("lines", [b"\x1b[31mab\x1b[0m\n", b"a\x1b[31m\x1b[0mb\n", b"\x1b[1;4ma\x1b[Kb\n", b"\x1b\n"])
def test_plain_text_is_absent_from_coloured_lines_that_do_not_have_it(lines: bytes) -> None:
    absent = {
        text for text in ("ab", "abc", "ba") if LinePattern(text, regex=False, ignore_case=False).is_absent(lines)
    }
    assert absent == {"abc", "ba"} | ({"ab"} if lines == b"\x1b\n" else set())


def test_long_plain_text_is_searched_in_lines_without_their_colours() -> None:
    for size in (SPANNING_CHARS_MAX, SPANNING_CHARS_MAX + 1):
        pattern = LinePattern("~" * size, regex=False, ignore_case=False)
        assert pattern.is_absent(b"\x1b[m\n") is (size == SPANNING_CHARS_MAX)
        assert is_found(pattern, b"~\x1b[m".join([b"~"] * size) + b"~\n") is True


@given(lines=texts, pattern=st.sampled_from(NAMED + ANY), ignore_case=st.booleans())
def test_lines_with_broken_utf8_match_what_they_match_when_each_byte_is_a_character(
    lines: bytes, pattern: str, *, ignore_case: bool
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(linepattern, "_ASCII_ONLY", linepattern.re.compile("(?!)"))  # all of them are converted
        converted = LinePattern(pattern, regex=True, ignore_case=ignore_case)
    compiled = LinePattern(pattern, regex=True, ignore_case=ignore_case)
    ends = [0, *(at + 1 for at, byte in enumerate(lines) if byte == ord("\n"))]
    matched = [compiled.matches(lines[start:end]) for start, end in pairwise(ends)]
    assert matched == [converted.matches(lines[start:end]) for start, end in pairwise(ends)]
    assert is_found(compiled, lines) is is_found(converted, lines) is any(matched)


def test_only_patterns_that_name_all_their_characters_are_searched_in_lines_as_they_are() -> None:
    lines = "a é\n".encode() + b"\xff\n"
    as_is = {
        pattern
        for pattern in NAMED + ANY
        if LinePattern(pattern, regex=True, ignore_case=False).prepared(lines) is lines
    }
    assert as_is == set(NAMED)
