"""Ways in which shells, programs and pages write a text, and so a secret."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Callable
from typing import Final
from urllib.parse import quote


def bash_quoted(text: str) -> str:
    """What `printf %q` of bash prints for a text without control characters."""
    return re.sub(r"([^A-Za-z0-9_@%+=:,./-])", r"\\\1", text)


def for_pages(text: str) -> str:
    """JSON as Go, Rails and PHP write it into pages."""
    return json.dumps(text).translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&"}).replace("/", "\\/")


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


QUOTED: Final[tuple[Callable[[str], str], ...]] = (
    bash_quoted,
    lambda text: bash_quoted(html.escape(text)),
    lambda text: "$'" + text.replace("'", "\\'").replace("ä", r"\303\244").replace("€", r"\342\202\254") + "'",
    lambda text: shlex.quote(shlex.quote(text)),
    html.escape,
    lambda text: html.escape(text).replace("&#x27;", "&apos;").replace("ä", "&auml;").replace("€", "&#8364;"),
    lambda text: "".join(f"&#X{ord(char):04X};" for char in text),
    json.dumps,
    for_pages,
    ascii,
    lambda text: repr(text.encode())[1:],
    lambda text: quote(text).lower(),
    lambda text: quote(text, safe="<>;").replace("%C3%A4", "%c3%A4"),
    lambda text: quote(quote(text)),
    lambda text: quote(html.escape(text)),
)
