"""Words of others as they may be shown: with nothing in them that a terminal obeys.

Obeyed are, besides the controls of ASCII: those of C1, U+009D among them, which begins the sequence that fills a
clipboard (OSC 52); the separators of lines (U+2028, U+2029); and what sets the direction of text, so that it reads as
what it is not (https://trojansource.codes).
"""

from __future__ import annotations

from typing import Final

OBEYED: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Beyond ASCII's own controls, as it stands between the brackets of a regular expression."""


def one_line(text: str) -> str:
    """`text` for one line of a log or one cell of a table: whatever would move the cursor becomes a question mark."""
    return "".join(char if char.isprintable() else " " if char in "\n\t" else "?" for char in text)
