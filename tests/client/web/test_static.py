"""Static files of the pages: ours stay few, and those of others are what npm has."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

STATIC = Path(__file__).resolve().parents[3] / "client/web/static"
CODE_LINES_MAX = 600  # of our own JavaScript, without blank lines and comments


def code_lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if not re.fullmatch(r"\s*(//.*)?", line)]


def test_our_javascript_is_small_and_plain_modules() -> None:
    sources = [path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")]
    assert sum(len(code_lines(source)) for source in sources) <= CODE_LINES_MAX
    assert max(len(line) for source in sources for line in source.splitlines()) <= 120
    for source in sources:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://", source)


def test_vendored_files_are_the_published_ones_and_no_others_are_there() -> None:
    sums = (STATIC / "vendor/SHA256SUMS").read_text(encoding="ascii").split()
    expected = dict(zip(sums[1::2], sums[::2], strict=True))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir()}
    assert {**found, "SHA256SUMS": ""} == {**expected, "SHA256SUMS": ""}
