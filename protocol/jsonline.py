"""JSON lines, as `--json` prints them: one object a line, with the characters escaped that a terminal would obey.

JSON itself escapes ASCII control characters only.
"""

from __future__ import annotations

import msgspec

from airunner.protocol.printable import escaped_json


def json_line(value: object) -> str:
    """Encode `value` as one line of JSON, without a newline; a parser reads the escapes as the original characters."""
    return escaped_json(msgspec.json.encode(value).decode())
