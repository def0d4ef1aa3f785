"""What a job writes is fit for a terminal: colours stay, attacks go, however the bytes are cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airunner.client.cli.terminal import RESET, SEQUENCE_CHARS_MAX, TerminalFilter

LINE_OR_COLOUR = re.compile(r"\x1b\[[0-9;:]*[mKCDGPX@]")
FORBIDDEN = re.compile("[\x00-\x07\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def shown(*pieces: bytes) -> bytes:
    """What a terminal gets, without what ends the colours."""
    here = TerminalFilter()
    passed = b"".join(map(here.feed, pieces))
    return passed + here.finish().removesuffix(RESET)


@pytest.mark.parametrize(
    "harmless",
    [
        b"plain text\n",
        "Grüße, 日本語, 🙂\n".encode(),
        b"\x1b[1;31mred\x1b[0m \x1b[38;5;200mpink\x1b[m \x1b[38:2::1:2:3mthis\x1b[K\n",
        b"10%\r20%\r\x1b[2K100%\b\b\b\b done\n\ttab",
        b"\x1b[10G\x1b[3C\x1b[2D\x1b[4P\x1b[@\x1b[5X",
        b"",
    ],
)
def test_text_and_colours_pass_as_they_are(harmless: bytes) -> None:
    assert shown(harmless) == harmless


ATTACKS: dict[str, tuple[bytes, bytes]] = {
    "the clipboard": (b"a\x1b]52;c;cm0gLXJmIC8K\x07b", b"ab"),
    "the clipboard, with C1 in UTF-8": (b"a\xc2\x9d52;c;eA==\xc2\x9cb", b"ab"),
    "the title": (b"a\x1b]0;root@bank\x07b", b"ab"),
    "a link": (b"\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\", b"here"),
    "DCS": (b'a\x1bP$q"p\x1b\\b', b"ab"),
    "APC": (b"a\x1b_Gi=1;AAAA\x1b\\b", b"ab"),
    "PM": (b"a\x1b^secret\x1b\\b", b"ab"),
    "SOS": (b"a\x1bXsecret\x1b\\b", b"ab"),
    "device attributes": (b"a\x1b[c\x1b[>c\x1b[=c\x1bZb", b"ab"),
    "status reports": (b"a\x1b[5n\x1b[6n\x1b[?6nb", b"ab"),
    "the alternate screen": (b"a\x1b[?1049hb", b"ab"),
    "a reset": (b"a\x1bc\x1b[!pb", b"ab"),
    "another character set": (b"a\x1b(0\x1b%G\x0eb\x0f", b"ab"),
    "erasing the screen": (b"a\x1b[2J\x1b[3J\x1b[Hb", b"ab"),
    "going up": (b"a\x1b[5A\x1b[10;10H\x1b[1;5r\x1bM\x1bD\x1bEb", b"ab"),
    "the keypad": (b"a\x1b=\x1b>b", b"ab"),
    "private colours": (b"a\x1b[?25lb\x1b[>4;2mc", b"abc"),
    "keyboard questions": (b"a\x1b[?4m\x1b[?2Kb", b"ab"),
    "a CSI of C1 in UTF-8": (b"a\xc2\x9b6nb", b"ab"),
    "raw C1": (b"a\x9b6nb", "a\ufffd6nb".encode()),
    "a bell, a vertical tab, a delete": (b"a\x07\x0b\x0c\x7f\x00b", b"ab"),
    "reversed text": ("a\u202eb\u2066c".encode(), b"abc"),
    "marks of direction": ("a\u061cb\u200ec\u200fd".encode(), b"abcd"),
    "separators of lines": ("a\u2028b\u2029c".encode(), b"abc"),
    "a string that does not end": (b"a\x1b]52;c;AAAA\nnext line", b"a\nnext line"),
    "a string in a string": (b"a\x1b]0;x\x1b]52;c;A\x07b", b"ab"),
    "a sequence that is broken off": (b"a\x1b[31\x1b[6nb\x1b[3\ncd", b"ab\ncd"),
    "an escape of its own": (b"a\x1b\x1b[6nb\x1b\xc3\xa4", "abä".encode()),
    "an endless list": (b"a\x1b[" + b"1;" * 10_000 + b"mb", b"ab"),
    "no UTF-8": (b"\xff\xc3(", "\ufffd\ufffd(".encode()),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_could_harm_is_left_out(attack: str) -> None:
    written, left = ATTACKS[attack]
    assert shown(written) == left
    assert shown(*(written[at : at + 1] for at in range(len(written)))) == left


WORDS = ("\x1b", "[", "]P", "m", "6n", "5;", "\x07", "\\", "\n", "\x9b", "?", "(0", "1" * 300, " " * 300)
CONTROLS = st.sampled_from([b"\xc2", b"\x9c", *(word.encode() for word in WORDS)])


@given(st.lists(CONTROLS | st.binary(max_size=3), max_size=40), st.lists(st.integers(0, 4_000), max_size=10))
@example([b"\x1b[" + b"1" * SEQUENCE_CHARS_MAX, b"m"], [10])
def test_nothing_depends_on_how_it_is_cut_and_nothing_forbidden_passes(written: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(written)
    places = sorted({0, *(cut % (len(whole) + 1) for cut in cuts), len(whole)})
    pieces = [whole[first:last] for first, last in pairwise(places)]
    passed = shown(*pieces)
    assert passed == shown(whole)
    assert not FORBIDDEN.search(LINE_OR_COLOUR.sub("", passed.decode()))


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf"))))
def test_text_of_any_language_passes(text: str) -> None:
    assert shown(text.encode()) == text.encode()


def test_no_colour_outlives_the_job() -> None:
    here = TerminalFilter()
    here.feed(b"\x1b[31mred")
    assert here.finish() == RESET
    assert here.finish() == b""
    here.feed(b"\x1b]0;")
    assert here.finish() == b""
    assert here.feed(b"fresh") == b"fresh"


def test_what_is_kept_between_two_pieces_is_bounded() -> None:
    here = TerminalFilter()
    for _ in range(1_000):
        assert here.feed(b"\x1b[" + b"1;" * 1_000) == b""
        assert len(here._pending) <= SEQUENCE_CHARS_MAX + 2
    here.feed(b"\x1b]" + b"x" * 1_000_000)
    assert len(here._pending) <= SEQUENCE_CHARS_MAX + 2
