"""Damage to a store's file, as a failing disk does it: one page is overwritten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

PAGE_BYTES = 4_096


def write_back(path: Path) -> None:
    """Have everything in the file itself; its broker is gone."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def damage_page_with(path: Path, marker: bytes, *, of_one_value: bool = False) -> None:
    """Overwrite a page in which `marker` stands; `of_one_value`: one from the middle of a large value."""
    write_back(path)
    content = bytearray(path.read_bytes())
    starts = range(PAGE_BYTES, len(content), PAGE_BYTES)  # the first page is the schema's
    pages = ((start, content[start : start + PAGE_BYTES]) for start in starts)
    start = next(start for start, page in pages if marker in page and (not of_one_value or _leads_on(page)))
    content[start : start + PAGE_BYTES] = b"\xff" * PAGE_BYTES
    path.write_bytes(content)


def _leads_on(page: bytes) -> bool:
    """Whether a page holds a piece of a value, and not its last: then it begins with the number of the next."""
    return 0 < int.from_bytes(page[:4], "big") < 1 << 24
