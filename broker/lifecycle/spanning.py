r"""Spanning patterns: what a search finds in lines without colours, as a pattern for lines with them. Pure.

A colour may stand between any two characters, or bytes, of a match: `ab` becomes `a(?:COLOUR)*b(?:COLOUR)*`. RE2 finds
it in lines as they are, as bytes, wherever it would find the pattern in prepared lines, and sometimes elsewhere (`31`
in a colour). So lines without it need not be prepared, which takes longer than to search them.

Only what is common in regular expressions is known here; no pattern is made of others, or of text that is not ASCII.
"""

from __future__ import annotations

import re
from typing import Final

COLOUR: Final = r"\x1b\[[0-?]*[ -/]*[@-~]"
_COLOURS: Final = f"(?:{COLOUR})*"
_LINE_END: Final = rf"(?:\r|{COLOUR})*$"
_BEYOND_ASCII: Final = r"[\x80-\xff]+"  # one character, or a byte that is not UTF-8, or more of them
_TIMES: Final = r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??"
_ESCAPED: Final = r"\\(?:[^A-Za-z0-9]|[dsw])"
_LISTED: Final = rf"(?:[^][\\]|{_ESCAPED})+"
_TOKEN: Final = re.compile(
    rf"""(?P<atom> (?P<named> [^][(){{}}*+?|^$.\\] | {_ESCAPED} | \[ (?!\^) {_LISTED} \] )
                 | \. | \\[DSW] | \[\^ {_LISTED} \] )
        (?P<times> {_TIMES} )?
      | (?P<bound> [\^$] )
      | (?P<group> \( (?:\?:)? | \) (?:{_TIMES})? | \| )""",
    re.VERBOSE | re.ASCII,
)


def spanning_text(text: str) -> str:
    """Return a pattern of bytes that matches plain text with colours anywhere in it."""
    return _COLOURS.join(f"\\x{byte:02x}" for byte in text.encode())


def spanning_regex(pattern: str) -> str | None:
    """Return a pattern of bytes that matches where a regular expression does once colours are removed; None: not known.

    `^` and `$` match at the ends of lines.
    """
    if not pattern.isascii():
        return None
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            return None
        parts.append(_spanned(token))
        at = token.end()
    return "".join(parts)


def _spanned(token: re.Match[str]) -> str:
    atom, bound, group = token["atom"], token["bound"], token["group"]
    if atom is None:
        return group or (_LINE_END if bound == "$" else bound + _COLOURS)
    either = atom if token["named"] else f"(?:{atom}|{_BEYOND_ASCII})"
    return f"(?:{either}{_COLOURS}){token['times']}" if token["times"] else either + _COLOURS
