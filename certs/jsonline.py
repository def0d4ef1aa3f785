"""One JSON object on one line, as `--json` prints it: what a terminal would obey stands in it escaped.

JSON itself escapes ASCII's controls only.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from airunner.protocol.printable import OBEYED

_OBEYED: Final = re.compile(f"[{OBEYED}]")


def json_line(one: object) -> str:
    """`one` without a newline at its end; to whoever parses it the escapes make no difference."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(one).decode())
