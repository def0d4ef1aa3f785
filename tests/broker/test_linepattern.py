"""Patterns of lines: what is absent from lines as they are is absent without colours, whatever their bytes are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.broker.lifecycle.linepattern import LinePattern
from airunner.broker.lifecycle.spanning import spanning_regex

TEXTS = (b"a", b"b", b"A", b"3", b"1m", b"m", b"[", b"\n", b"\r", b" ", "é".encode(), b"\xff", b"\xc3", b"\x7f", b"\0")
COLOURS = (b"\x1b[31m", b"\x1b[0m", b"\x1b[K", b"\x1b[ q", b"\x1b[1;2 !@", b"\x1b[[")
TORN = (b"\x1b", b"\x1b[", b"\x1b[3", b"\x1b[ ")
PLAIN = (
    "a",
    "ab",
    "31",
    "31m",
    "[",
    "m",
    "\x1b",
    "\x1b[3",
    "a.b",
    " ",
    "aé",
    "a\n",
    "\n",
    "\t",
    "\0",
    "(a",
    "b\\",
    "\r",
)
SPANNED = (
    "a", "a+b", "[ab]+$", "^[^a]", r"^\d|\s$", "[0-9]{2}m", r"a\.b", "a|31", "^$", "(?:ab)*m", "(a|b)+?$", "a?b{1,}m",
    ".", "a.b", "a.*b$", "[^a]b", r"[^\d\s]+$", r"a\Db", r"\W$", r"^\S{2}", "a$", "a \n", "$", "^", "()", r"[\]a]b",
    "a{1,2}?b",
)  # fmt: skip
OTHERS = (
    "é", r"\x41", r"a\b", "(?i)a", "(?P<n>a)", "[[:alpha:]]b", r"\pL", r"\Aa", r"a\z", r"\Ca", "a{", r"\Qa.\E",
    "[]a]", "(?-m:^)",
)  # fmt: skip

texts = st.lists(st.sampled_from((*TEXTS, *COLOURS, *TORN)), max_size=24).map(lambda pieces: b"".join(pieces) + b"\n")


@given(
    lines=texts,
    pattern=st.sampled_from([*((text, False) for text in PLAIN), *((regex, True) for regex in SPANNED + OTHERS)]),
    ignore_case=st.booleans(),
)
def test_what_is_absent_from_lines_as_they_are_is_absent_from_prepared_lines(
    lines: bytes, pattern: tuple[str, bool], *, ignore_case: bool
) -> None:
    text, regex = pattern
    compiled = LinePattern(text, regex=regex, ignore_case=ignore_case)
    if compiled.is_absent(lines):
        assert compiled.find(compiled.prepared(lines), 0) == -1


@pytest.mark.parametrize(
    ("pattern", "regex", "line", "absent"),
    [
        ("abc", False, b"\x1b[31mab\x1b[0m", True),
        ("ab", False, b"a\x1b[31m\x1b[0mb", False),
        ("aé", False, b"a\x1b[31m\xc3\x1b[0m\xa9", False),
        ("ab+c$", True, b"a\x1b[31mbb\x1b[0m", True),
        ("ab+c$", True, b"a\x1b[31mbb\x1b[0mbc\x1b[K\r", False),
        ("^b", True, b"\x1b[31ma", True),
        ("^a", True, b"\x1b[31ma", False),
        ("fatal: .* [^x]$", True, "é \x1b[31mfatal: ░ x".encode(), True),
        ("fatal: .* [^x]$", True, "é \x1b[31mfatal: ░ é".encode(), False),
        ("a.b", True, b"a\xffb", False),
    ],
)
def test_colours_and_bytes_beyond_ascii_hide_nothing(pattern: str, line: bytes, *, regex: bool, absent: bool) -> None:
    assert LinePattern(pattern, regex=regex, ignore_case=False).is_absent(line + b"\n") is absent


def test_of_common_regular_expressions_all_can_be_searched_in_lines_as_they_are_and_of_others_none() -> None:
    assert [pattern for pattern in SPANNED + OTHERS if spanning_regex(pattern) is not None] == list(SPANNED)


def test_a_pattern_that_is_too_large_with_colours_is_searched_without_them() -> None:
    for size, absent in ((10, True), (400, False)):
        pattern = LinePattern("~" * size, regex=False, ignore_case=False)
        assert pattern.is_absent(b"\x1b[m\n") is absent
        assert pattern.find(pattern.prepared(b"~\x1b[m" * size + b"\n"), 0) == 0
