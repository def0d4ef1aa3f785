"""Terms of a search in a log, as keyword arguments of the SDK."""

from __future__ import annotations

from typing import TypedDict


class SearchTerms(TypedDict, total=False):
    """Terms of a search, beside its pattern."""

    regex: bool
    """Whether the pattern is a regular expression of RE2; otherwise it is plain text."""
    ignore_case: bool
    context: int
    """Lines before and after each match, up to 16; their `LogLine.match` is false."""
    from_line: int
    """Number of the first line to look at, from 1 on."""
