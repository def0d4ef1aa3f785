"""Patterns of artifacts' paths: `*` and `?` within a name, `**` for any folders, and all that is in a folder. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

DEEP: Final = "**"


class PathPattern:
    """Pattern of paths; that of a folder matches all files in it, and a path matches itself, whatever is in it."""

    def __init__(self, text: str) -> None:
        self._text = text.removeprefix("./").rstrip("/")
        self._names = [] if self._text in ("", ".") else self._text.split("/")

    def matches(self, path: str) -> bool:
        """Return whether the path of a file or folder matches."""
        path = path.rstrip("/")
        return path == self._text or path.startswith(f"{self._text}/") or self._fits(path.split("/"))

    def _fits(self, path: Sequence[str]) -> bool:
        """Match the names of a path in turn; `places` are where in the pattern its next name may be."""
        places = self._behind({0})
        for name in path:
            if len(self._names) in places:  # a folder in the path matches
                return True
            places = self._behind(
                {
                    place if self._names[place] == DEEP else place + 1
                    for place in places
                    if self._names[place] == DEEP or fnmatchcase(name, self._names[place])
                }
            )
        return len(self._names) in places

    def _behind(self, places: Iterable[int]) -> set[int]:
        """Add the places behind each `**`, which may stand for no folder at all."""
        found: set[int] = set()
        for place in places:
            found.add(place)
            while place < len(self._names) and self._names[place] == DEEP:
                place += 1  # noqa: PLW2901 - it goes on from here
                found.add(place)
        return found
