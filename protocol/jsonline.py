"""One JSON object on one line, as `--json` prints it: what a terminal would obey stands in it escaped.

JSON itself escapes ASCII's controls only.
"""

from __future__ import annotations

import msgspec

from airunner.protocol.printable import escaped_json


def json_line(one: object) -> str:
    """`one` without a newline at its end; to whoever parses it the escapes make no difference."""
    return escaped_json(msgspec.json.encode(one).decode())
