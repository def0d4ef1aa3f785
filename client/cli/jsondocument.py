"""JSON documents (RFC 8259) whose numbers and strings stay as they are typed, each with its line."""

from __future__ import annotations

import json
import re
from typing import Final

from airunner.client.cli.written import Entries, Items, MiswrittenError, Written, refuse

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?: (?P<mark> [{}\[\],:])
        | (?P<text> "(?: [^"\\\x00-\x1f] | \\ ["\\/bfnrt] | \\u[0-9a-fA-F]{4} )*" )
        | (?P<number> -?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)? (?![0-9A-Za-z_.+-]) )
        | (?P<word> true|false|null ) (?![0-9A-Za-z_])
        | (?P<end> \Z ) )""",
    re.VERBOSE,
)
_MEANINGS: Final = {"true": True, "false": False, "null": None}
_LONE: Final = re.compile("[\ud800-\udfff]")


class NotJsonError(MiswrittenError):
    """The text is not JSON from this line on."""


def parse(text: str, depth_max: int) -> object:
    """Parse a document. Raises `NotJsonError`, or `MiswrittenError` for a duplicate key or half a surrogate pair."""
    reader = _Reader(text, depth_max)
    value = reader.value(reader.next(), 0)
    if reader.next()[0] != "end":
        raise reader.mistake("the end of the file")
    return value


class _Reader:
    """Reader of one document: its text, and the place and line of the current token."""

    def __init__(self, text: str, depth_max: int) -> None:
        self._text = text
        self._depth_max = depth_max
        self._at = self._end = 0
        self._line = 1

    def next(self) -> tuple[str, str]:
        """Read the next token: its kind and text; a kind of "" is no token of JSON."""
        start = self._at
        found = _TOKEN.match(self._text, self._end)
        if found is None or found.lastgroup is None:
            self._at = self._end = len(self._text) - len(self._text[self._end :].lstrip())
            kind = token = ""
        else:
            self._at, self._end = found.span(found.lastgroup)
            kind, token = found.lastgroup, found[found.lastgroup]
        self._line += self._text.count("\n", start, self._at)
        return kind, token

    def mistake(self, expected: str) -> NotJsonError:
        """Make the error for the current token."""
        rest = self._text[self._at :].split(maxsplit=1)
        return NotJsonError(
            self._line, f"expected {expected}, not {rest[0][:20]!r}" if rest else f"{expected} is missing"
        )

    def value(self, token: tuple[str, str], depth: int) -> object:
        """Read the value that begins with `token`."""
        if depth > self._depth_max:
            raise RecursionError
        match token:
            case "mark", "{":
                return self._entries(depth)
            case "mark", "[":
                return self._items(depth)
            case "text", quoted:
                return self._words(quoted)
            case "number", digits:
                return Written(digits, self._line)
            case "word", word:
                return Written(word, self._line, _MEANINGS[word])
            case _:
                raise self.mistake("a value")

    def _words(self, quoted: str) -> Written:
        words = json.loads(quoted)
        if _LONE.search(words):
            refuse(self._line, f"{quoted[:40]} has half of a surrogate pair, which is no character")
        return Written(words, self._line)

    def _entries(self, depth: int) -> Entries:
        entries = Entries(self._line)
        token = self.next()
        while token != ("mark", "}"):
            if token[0] != "text":
                raise self.mistake("a key in double quotes")
            key = self._words(token[1])
            if self.next() != ("mark", ":"):
                raise self.mistake("a colon")
            entries.add(key, self.value(self.next(), depth + 1))
            token = self._after_comma("}")
        return entries

    def _items(self, depth: int) -> Items:
        items = Items(self._line)
        token = self.next()
        while token != ("mark", "]"):
            items.append(self.value(token, depth + 1))
            token = self._after_comma("]")
        return items

    def _after_comma(self, end: str) -> tuple[str, str]:
        """Read the token after a comma, which is not `end`; or `end` itself."""
        token = self.next()
        if token == ("mark", end):
            return token
        if token != ("mark", ","):
            raise self.mistake(f"a comma or {end}")
        token = self.next()
        if token == ("mark", end):
            raise self.mistake("another entry after the comma")
        return token
