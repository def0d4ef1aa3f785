"""One JSON object on one line, as `--json` prints it: what a terminal would obey stands in it escaped.

JSON escapes controls below U+0020 only. Others are as good: U+009D begins the sequence that fills a clipboard (OSC 52),
and U+202E turns the text behind it round.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_OBEYED: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def json_line(one: object) -> str:
    """`one` without a newline at its end; to whoever parses it the escapes make no difference."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(one).decode())
