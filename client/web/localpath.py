"""Local path: where a login leads to, which is on this server, whatever an address asks for (no open redirect)."""

from __future__ import annotations

import re
from typing import Final

HOME: Final = "/"
PATH_CHARS_MAX: Final = 2_000  # a list with all of its filters has some 300
# Browsers read `//host` and `/\host` as another host, and drop tabs and newlines before they look.
_LOCAL: Final = re.compile(r"/(?![/\\])[!-~]*\Z")


def local_path(text: str) -> str:
    r"""Return `text` if it is a path on this server, with its query, and else `/`.

    >>> local_path("/jobs?state=FAILED"), local_path("//evil.example"), local_path("/\\evil.example")
    ('/jobs?state=FAILED', '/', '/')
    """
    return text if len(text) <= PATH_CHARS_MAX and _LOCAL.match(text) and "\\" not in text else HOME
