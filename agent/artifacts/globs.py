"""Globs of artifacts: decide which paths below the checkout the patterns of a job name. Pure.

A pattern is matched name by name, as Python's `glob` does with `recursive=True`: `*`, `?` and `[…]` match within a
name, and `**` matches any number of folders. A name that begins with a dot is matched only by a pattern that has the
dot. What a pattern names is kept with everything in it, except for names that begin with a dot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Final

Places = frozenset[tuple[int, int]]
"""Places that a path has reached in the patterns: numbers of patterns, and of the parts that are matched so far."""

_MAGIC: Final = re.compile(r"[*?\[]")


class Globs:
    """Globs of one job, each relative to the checkout."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        self._parts = tuple(tuple(map(_part, _names(pattern))) for pattern in patterns)

    @property
    def top(self) -> Places:
        """Places of the checkout itself."""
        return self._closed({(number, 0) for number in range(len(self._parts))})

    def below(self, places: Places, name: str, *, folder: bool) -> Places:
        """Return the places of `name` in a folder that has `places`; none: no pattern names it or anything in it."""
        shown = not name.startswith(".")
        found: set[tuple[int, int]] = set()
        for number, at in places:
            parts = self._parts[number]
            part = parts[at] if at < len(parts) else None
            if part is None:
                if shown:
                    found.add((number, at))
            elif part.fullmatch(name):
                found.add((number, at + 1))
        return self._closed(found) if folder else frozenset(found)

    def matched(self, places: Places) -> set[int]:
        """Return the numbers of the patterns that name a path, or a folder around it."""
        return {number for number, at in places if at == len(self._parts[number])}

    def _closed(self, found: set[tuple[int, int]]) -> Places:
        """Add the places behind each `**`, which may stand for no folder at all."""
        waiting = list(found)
        while waiting:
            number, at = waiting.pop()
            parts = self._parts[number]
            if at < len(parts) and parts[at] is None and (number, at + 1) not in found:
                found.add((number, at + 1))
                waiting.append((number, at + 1))
        return frozenset(found)


def _names(pattern: str) -> list[str]:
    """Split a pattern; a `/` at its end stands for `**`, because only a folder has something below it."""
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    return [*names, "**"] if pattern.endswith("/") else names


def _part(name: str) -> re.Pattern[str] | None:
    """Compile a part of a pattern, which matches one name; None: `**`."""
    if name == "**":
        return None
    if not _MAGIC.search(name):
        return re.compile(re.escape(name))
    return re.compile(translate(name) if name.startswith(".") else rf"(?!\.){translate(name)}")
