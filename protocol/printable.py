"""Words of others as they may be shown: with nothing in them that a terminal obeys.

Obeyed are, besides the controls of ASCII: those of C1, U+009D among them, which begins the sequence that fills a
clipboard (OSC 52); the separators of lines (U+2028, U+2029); and what sets the direction of text, so that it reads as
what it is not (https://trojansource.codes).
"""

from __future__ import annotations

import re
from typing import Final

OBEYED: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Beyond ASCII's own controls, as it stands between the brackets of a regular expression."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def one_line(text: str) -> str:
    """`text` for one line of a log or one cell of a table: whatever would move the cursor becomes a question mark."""
    return "".join(char if char.isprintable() else " " if char in "\n\t" else "?" for char in text)


def is_plain(text: str) -> bool:
    """Whether all of `text` is seen as it is: no controls, nothing invisible, no space but U+0020."""
    return text.isprintable() and not _INVISIBLE.search(text)
