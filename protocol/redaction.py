"""How a repository's URL is spoken of: without the credentials that may stand in it."""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "[REDACTED]"
USER: Final = re.compile(r"(?<=://)[^/?#\s'\"]*@")  # up to the last @ of the authority, as curl reads it
"""Where a URL's user and password stand, with the @."""


def without_credentials(text: str) -> str:
    """`text` with every URL in it less its user and password."""
    return USER.sub(f"{REDACTED}@", text)
