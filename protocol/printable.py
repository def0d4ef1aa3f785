"""Words of others as they may be shown: on one line, with nothing in them that a terminal obeys."""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` for one line of a log or one cell of a table: whatever would move the cursor becomes a question mark."""
    return "".join(char if char.isprintable() else " " if char in "\n\t" else "?" for char in text)
