"""Terminal filter of a job's output: passes text and colours, and removes what could harm the terminal or its user.

A terminal obeys control sequences: they can change its title, put text into the clipboard (OSC 52), make it type
answers to queries as if its user had (DA, DSR, DECRQSS), hide earlier text, or leave it in a mode that outlives the
job. So only this goes through
- text, tab, newline, carriage return and backspace;
- colours and styles (SGR), and movements and erasures within the line (`CSI` … `K C D G P @ X`).

Everything else is left out: other control characters, C1 controls in either form, every OSC, DCS, APC, PM and SOS with
its content, modes, queries, movements to other lines, and characters that set the direction of text ("Trojan Source").
Bytes that are not UTF-8 become U+FFFD, which is how a terminal shows them.

Pure. The result does not depend on how the bytes are split into pieces; the state between two pieces is bounded. A
control string without a terminator (OSC, DCS and the like) ends with its line, so it hides no more than that line.

Sources: ECMA-48; "Control Sequences", https://invisible-island.net/xterm/ctlseqs/; https://trojansource.codes.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from airunner.protocol.printable import OBEYED

SEQUENCE_CHARS_MAX: Final = 256  # in the parameters of a sequence that passes; a long list of colours takes fifty
RESET: Final = b"\x1b[0m"

_TEXT: Final = re.compile(f"[^\x00-\x07\x0b\x0c\x0e-\x1f{OBEYED}]+")  # with \b, \t, \n and \r
_STRINGS: Final = frozenset("]PX^_")  # each begins a control string after ESC: OSC, DCS, SOS, PM, APC
_STRING_ENDS: Final = re.compile("[\n\x07\x18\x1a\x1b\x9c]")
_PARAMETERS: Final = re.compile("[0-?]*[ -/]*")
_INTERMEDIATES: Final = re.compile("[ -/]*")
_HARMLESS: Final = re.compile("[0-9;:]*[mKCDGPX@]")
_HOPELESS: Final = "\x1b[<"  # stands for the beginning of a sequence that is left out, whatever follows


class TerminalFilter:
    """Terminal filter of one stream of a job."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""  # an incomplete sequence at the end of the last piece
        self._in_string = False
        self._styled = False

    def feed(self, data: bytes) -> bytes:
        """Filter the next piece, and return the bytes for the terminal."""
        return self._filtered(self._decoder.decode(data))

    def plain(self) -> bytes:
        """Return the bytes that reset the colours, if the job set any, before a message of ours."""
        reset = RESET if self._styled else b""
        self._styled = False
        return reset

    def finish(self) -> bytes:
        """Return the rest of the output, and the bytes that reset the colours, so that none outlives the job."""
        rest = self._filtered(self._decoder.decode(b"", final=True))
        self._pending, self._in_string = "", False
        return rest + self.plain()

    def _filtered(self, fresh: str) -> bytes:
        text, self._pending = self._pending + fresh, ""
        kept: list[str] = []
        at = 0
        while at < len(text):
            if self._in_string:
                at = self._leave_string(text, at)
            elif found := _TEXT.match(text, at):
                kept.append(found[0])
                at = found.end()
            else:
                at = self._control(text, at, kept)
        return "".join(kept).encode()

    def _leave_string(self, text: str, at: int) -> int:
        """Skip a control string, and return the offset after it."""
        found = _STRING_ENDS.search(text, at)
        if found is None:
            return len(text)
        end = found.start()
        if text[end] == "\x1b" and end + 1 == len(text):
            self._pending = "\x1b"
            return len(text)
        self._in_string = False
        if text[end] == "\x1b":
            return end + 2 if text[end + 1] == "\\" else end
        return end if text[end] == "\n" else end + 1

    def _control(self, text: str, at: int, kept: list[str]) -> int:
        """Process a control character and the sequence that it begins; return the offset after them."""
        character = text[at]
        if character == "\x1b":
            if at + 1 == len(text):
                self._pending = character
                return len(text)
            kind, start = text[at + 1], at + 2
        elif "\x80" <= character <= "\x9f":
            kind, start = chr(ord(character) - 0x40), at + 1
        else:
            return at + 1
        if kind in _STRINGS:
            self._in_string = True
            return start
        if kind == "[":
            return self._sequence(text, at, start, kept)
        if " " <= kind <= "/":
            found = _INTERMEDIATES.match(text, start)
            assert found is not None, "the pattern did not match an empty text"
            if found.end() == len(text):
                self._pending = text[at : at + 2] + text[-1]  # other intermediates make no difference
                return len(text)
            return found.end() + ("0" <= text[found.end()] <= "~")
        return start if "0" <= kind <= "~" or character != "\x1b" else at + 1

    def _sequence(self, text: str, at: int, start: int, kept: list[str]) -> int:
        """Process a control sequence (CSI), whose parameters begin at `start`."""
        found = _PARAMETERS.match(text, start)
        assert found is not None, "the pattern did not match an empty text"
        end = found.end()
        if end == len(text):
            in_time = end - start <= SEQUENCE_CHARS_MAX
            self._pending = text[at:] if in_time else _HOPELESS + (" " if " " <= text[-1] <= "/" else "")
            return len(text)
        if not "@" <= text[end] <= "~":
            return end
        if end - start <= SEQUENCE_CHARS_MAX and _HARMLESS.fullmatch(text, start, end + 1):
            kept.append(f"\x1b[{text[start : end + 1]}")
            self._styled |= text[end] == "m"
        return end + 1
