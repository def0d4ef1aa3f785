"""Hints for values that look like a list: commas are literal, and an option is repeated for more values.

A false hint annoys, so values that are certainly not a list, such as a URL, JSON, prose or `-Wl,-rpath`, get none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from airunner.protocol.misfits import shown

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]*"
_PAIRS: Final = re.compile(rf"({_NAME})=([^=,;]*)[,;] ?({_NAME})=")
_OPTIONS: Final = re.compile(r"(-[A-Za-z]|--[a-z][a-z0-9-]+)[,;]\S")
_APART: Final = "write each argument as an item of args, or use sh with the arguments -c and the line"
_WORDS: Final = re.compile(r"[A-Za-z][\w./-]*([,;][A-Za-z][\w./-]*)+", re.ASCII)


def command_hint(command: str) -> str | None:
    """Return a hint if a command looks like a program with its arguments; a path may have blanks."""
    if len(command.split()) <= 1 or "/" in command:
        return None
    return f"{shown(command)} is the name of one program, and there is no shell in between: {_APART}"


def pairs_hint(flag: str, pairs: Sequence[str]) -> str | None:
    """Return a hint if a NAME=VALUE looks like several: `A=1;B=2` does, `OPTS=rw,size=1m` and URLs do not."""
    for pair in pairs:
        found = _PAIRS.match(pair)
        if found and "://" not in found[2] and (found[1].isupper() <= found[3].isupper()):
            return f"{flag} {pair!r} sets only {found[1]}, to everything after its =; repeat {flag} for more variables"
    return None


def words_hint(flag: str, words: Sequence[str]) -> str | None:
    """Return a hint when the only value of an option looks like several."""
    if len(words) == 1 and (_OPTIONS.match(words[0]) or _WORDS.fullmatch(words[0])):
        return f"{flag} {words[0]!r} is one value, commas included; repeat {flag} for more values"
    return None
