"""Sizes in words: one rule for what people are shown. Pure."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")


def bytes_text(size: int) -> str:
    """Format a size: `512 bytes`, `1.5 KiB`, `23.0 MiB`."""
    power = min(len(_UNITS), (size.bit_length() - 1) // 10)
    if power < 1:
        return f"{size} bytes" if size != 1 else "1 byte"
    return f"{size / 1_024**power:.1f} {_UNITS[power - 1]}"
