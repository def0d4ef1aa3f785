"""No encoding of a secret comes through, however it is cut, wrapped, quoted or coloured: by many random examples."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import textwrap
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airunner.agent.output.escapes import Reading, folded
from airunner.agent.output.redactor import Redactor
from tests.agent.output.test_redaction import MARK, PEM, redacted
from tests.quoting import QUOTED, for_pages, in_base64

pytestmark = pytest.mark.unmeasured

INDENTED = "".join(f"    {line}\n" for line in PEM.splitlines())

small = st.text(alphabet="ab\n/", min_size=1, max_size=5)
anything = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def model(patterns: set[bytes], text: bytes) -> bytes:
    """The same by looking at each byte, as nobody would do it who has megabytes."""
    passed = bytearray()
    end = 0
    for at in range(len(text)):
        here = max((at + len(pattern) for pattern in patterns if text.startswith(pattern, at)), default=0)
        if here and at >= end:
            passed += MARK
        end = max(end, here)
        if at >= end:
            passed.append(text[at])
    return bytes(passed)


@given(values=st.lists(small, max_size=4), text=st.text(alphabet="ab\n/c", max_size=60), sizes=st.data())
def test_exactly_what_belongs_to_an_occurrence_is_covered_however_it_is_cut(
    values: list[str], text: str, sizes: st.DataObject
) -> None:
    chunks = sizes.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    patterns = {value.encode() for value in values}
    assert b"".join(redacted(Redactor(values), text.encode(), chunks)) == model(patterns, text.encode())


PIECES = (*"ab/\n\\5&;'", "%2", "%2f", "%25", "amp", "#x2f;", "\\n", "u00", "2f", "\x1b[", "0m", "ab/a")


@given(
    values=st.lists(st.text(alphabet="ab\n/é%", min_size=6, max_size=12), min_size=1, max_size=3),
    pieces=st.lists(st.sampled_from(PIECES), max_size=40),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
)
def test_a_secret_in_escapes_is_covered_however_it_is_cut(
    values: list[str], pieces: list[str], sizes: list[int]
) -> None:
    text = "".join(pieces).encode()
    cut, whole = (b"".join(redacted(Redactor(values), text, parts)).replace(MARK, b"") for parts in (sizes, [1_000]))
    assert len(cut) <= len(whole), "a cut may hide more, where an escape began before it"


ENCODINGS: Final[dict[str, Callable[[bytes, bytes], bytes]]] = {
    "itself": lambda raw, _: raw,
    "a terminal's": lambda raw, _: raw.replace(b"\n", b"\r\n"),
    "base64": lambda raw, _: base64.b64encode(raw),
    "base64 for URLs": lambda raw, _: base64.urlsafe_b64encode(raw).rstrip(b"="),
    "base64 of more": lambda raw, around: base64.b64encode(around + raw + around),
    "base64 for URLs of more": lambda raw, around: base64.urlsafe_b64encode(around + raw + around),
    "base64 in lines": lambda raw, _: base64.encodebytes(raw),
    "base64 in shorter lines": lambda raw, _: b"\r\n".join(
        base64.b64encode(raw)[at : at + 64] for at in range(0, len(raw) * 2, 64)
    ),
    "a URL": lambda raw, _: quote(raw).encode(),
    "a part of a URL": lambda raw, _: quote(raw, safe="").encode(),
    "a form": lambda raw, _: quote_plus(raw).encode(),
    "a URL in lower case": lambda raw, _: re.sub("%..", lambda one: one[0].lower(), quote(raw, safe="")).encode(),
    "JSON": lambda raw, _: json.dumps(raw.decode()).encode(),
    "hex": lambda raw, _: raw.hex().encode(),
    "hex in capitals": lambda raw, _: raw.hex().upper().encode(),
    "a shell": lambda raw, _: shlex.quote(raw.decode()).encode(),
    "JSON as UTF-8": lambda raw, _: json.dumps(raw.decode(), ensure_ascii=False).encode(),
    "XML": lambda raw, _: html.escape(raw.decode()).encode(),
    "numbers in XML": lambda raw, _: "".join(f"&#{ord(char)};" for char in raw.decode()).encode(),
    "YAML": lambda raw, _: raw.replace(b"'", b"''"),
    "JSON in JSON": lambda raw, _: json.dumps(json.dumps(raw.decode())).encode(),
    "base64 of a URL": lambda raw, _: base64.b64encode(quote(raw, safe="").encode()),
}


@pytest.mark.parametrize("how", ENCODINGS)
@settings(max_examples=25)
@given(secret=anything, before=st.binary(max_size=20), after=st.binary(max_size=20), cut=st.data())
def test_no_encoding_of_a_secret_comes_through(
    how: str, secret: str, before: bytes, after: bytes, cut: st.DataObject
) -> None:
    raw = secret.encode()
    assume(len(folded(raw)) >= 6)
    encoded = ENCODINGS[how](raw, before)
    sizes = cut.draw(st.lists(st.integers(1, len(encoded) + 9), min_size=1, max_size=4))
    out = b"".join(redacted(Redactor([secret]), before + encoded + after, sizes))
    assert MARK in out
    for left in (raw, base64.b64encode(raw).rstrip(b"=")[:-1], quote(raw).encode()):
        assert all(left not in piece for piece in out.split(MARK))


def unwrapped(text: bytes) -> bytes:
    return text.translate(None, b" \t\r\n")


WRAPPED: Final[dict[str, tuple[Callable[[bytes], bytes], int, int]]] = {
    "base64": (base64.b64encode, 4, 8),
    "hex": (lambda raw: raw.hex().encode(), 2, 2),
    "hex in capitals": (lambda raw: raw.hex().upper().encode(), 2, 2),
}
"""How it is encoded, how many characters are one unit, and how many may be told at the secret's ends."""


@pytest.mark.parametrize("how", WRAPPED)
@given(
    raw=st.binary(min_size=6, max_size=90),
    before=st.binary(max_size=60),
    after=st.binary(max_size=3),
    units=st.integers(1, 25),
    indent=st.sampled_from(["", " ", "  "]),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4),
)
def test_wherever_its_encoding_is_wrapped_none_of_a_secret_is_left(
    how: str, raw: bytes, before: bytes, after: bytes, units: int, indent: str, sizes: list[int]
) -> None:
    encode, unit, ends = WRAPPED[how]
    columns = units * unit if units > 2 else 60
    encoded = encode(before + raw + after).decode()
    lines = [encoded[at : at + columns] for at in range(0, len(encoded), columns)]
    text = textwrap.indent("\n".join(lines) + "\n", indent).encode()
    out = b"".join(redacted(Redactor([raw.decode("utf-8", "surrogateescape")]), text, sizes))
    assert MARK in out
    left = sum(len(unwrapped(piece)) for piece in out.split(MARK))
    bits = {4: 6, 2: 4}[unit]
    assert left <= -(-len(before) * 8 // bits) + -(-len(after) * 8 // bits) + ends


@given(secret=anything, text=st.binary(max_size=200), sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4))
def test_where_no_secret_stands_nothing_changes(secret: str, text: bytes, sizes: list[int]) -> None:
    out = b"".join(redacted(Redactor([secret]), text, sizes))
    assert out == text or MARK in out


@pytest.mark.parametrize("size", [11, 1_000, 65_536])
@pytest.mark.parametrize("how", ENCODINGS)
def test_a_key_of_many_lines_leaves_none_of_them(how: str, size: int) -> None:
    text = b"before\n" + ENCODINGS[how](PEM.encode(), b"x") + b"\nafter\n"
    out = b"".join(redacted(Redactor([PEM]), text, [size]))
    assert b"fore" in out
    for line in PEM.encode().splitlines():
        assert line not in out
        assert base64.b64encode(line) not in out


def one_line(text: str) -> str:
    """What `echo $KEY` prints."""
    return " ".join(text.split())


ODD = "p<a>&ss'w\"o;r d/ä€"


@pytest.mark.parametrize(
    ("secret", "printed"),
    [
        (INDENTED, one_line(INDENTED)),
        (INDENTED, json.dumps(INDENTED)),
        (INDENTED, json.dumps({"k": json.dumps(INDENTED)})),
        (INDENTED, textwrap.dedent(INDENTED)),
        (INDENTED, textwrap.indent(textwrap.dedent(INDENTED), "\t|  ")),
        (INDENTED, INDENTED.replace("\n", "\r\n")),
        (INDENTED, quote_plus(one_line(INDENTED))),
        (INDENTED, "$'" + INDENTED.replace("\n", "\\n") + "'"),
        (INDENTED, repr(INDENTED)),
        (INDENTED, html.escape(INDENTED).replace("\n", "&#10;")),
        (INDENTED, in_base64(json.dumps(INDENTED))),
        (json.dumps({"key": PEM}), PEM),
        (json.dumps({"key": PEM}), textwrap.indent(PEM, "| ")),
        (in_base64(PEM), PEM),
        (in_base64(f"user:{ODD}"), f"user:{ODD}"),
        (PEM, one_line(PEM)),
        (PEM, "\n".join(f'  "{line}\\n" \\' for line in PEM.splitlines())),
        (ODD, html.escape(html.escape(ODD))),
        ("000000a", "C:\\" + "".join(f"&#{ord(char)};" for char in "000000a")),
        (ODD, "'" + ODD.replace("'", "''") + "'"),
        (ODD, for_pages(json.dumps(ODD))),
        (ODD, re.sub("u00..", lambda escape: escape[0][:3] + escape[0][3:].upper(), for_pages(ODD))),
        (ODD, html.escape(json.dumps(ODD))),
        (ODD, json.dumps(quote(ODD, safe=""))),
        (ODD, quote(in_base64(ODD), safe="")),
        (ODD, json.dumps(in_base64(ODD)).replace("/", "\\/")),
        (ODD, in_base64(quote(ODD, safe=""))),
        (ODD, in_base64(json.dumps(ODD))),
        (ODD, in_base64(html.escape(ODD))),
        (ODD, in_base64(in_base64(f"user:{ODD}"))),
        (ODD, in_base64(ODD).encode().hex()),
        (ODD, in_base64(ODD.encode().hex())),
        (ODD, "".join(f"\x1b[1m{char}\x1b[0m" for char in ODD)),
        (ODD, "".join(f"\x1b[1m{char}\x1b(B\x1b[m" for char in quote(ODD))),
        (ODD, json.dumps("\x1b[1m" + quote(ODD).replace("%", "%\x1b[0m"))),
        *((ODD, how(ODD)) for how in QUOTED),
        ("lt;hunter&22xx", r"a=1\u0026lt;hunter\u002622xx"),
        ("20ab/cdef", "100% 20ab%2Fcdef"),
        ("nab/cdef", "curl \\\nnab%2Fcdef"),
    ],
)
def test_however_a_program_quotes_and_folds_a_secret_no_piece_of_it_is_left(secret: str, printed: str) -> None:
    for size in (11, 100_000):
        out = b"".join(redacted(Redactor([secret]), b"<< " + printed.encode() + b" >>", [size])).decode()
        pieces = re.split(r"[^A-Za-z0-9+/=]+", printed)
        assert "[REDACTED]" in out
        assert [piece for piece in pieces if len(piece) >= 6 and piece in out.replace("[REDACTED]", " ")] == []


BROKEN: Final[dict[str, Callable[[str], str]]] = {
    "itself": str,
    "a URL": lambda text: quote(text, safe=""),
    "JSON": for_pages,
    "XML": html.escape,
    "numbers in XML": lambda text: "".join(f"&#{ord(char)};" for char in text),
}


@pytest.mark.parametrize("between", ["\n", "\r\n", "\n    ", "\\\n", "\x1b[01;31m\x1b[K"])
@pytest.mark.parametrize("how", BROKEN)
def test_wherever_a_line_or_a_colour_ends_under_four_characters_of_a_secret_are_left(how: str, between: str) -> None:
    for secret in ("ghp_A1b2C3d4E5f6", "$2y$1/N9<o>qo8", ODD):
        redactor = Redactor([secret])
        printed = BROKEN[how](secret)
        for at in range(1, len(printed)):
            text = f"<< {printed[:at]}{between}{printed[at:]} >>".encode()
            out = b"".join(redacted(redactor, text, [3 if at % 2 else 1_000])).decode()
            shown, after = out.split("[REDACTED]", 1)
            left = shown.removeprefix("<< ").replace(between, "").encode()
            assert len(folded(Reading(left).decoded().text)) < 4
            assert after.removeprefix(between).lstrip('"') == " >>"


@pytest.mark.parametrize(("how", "columns"), [("base64", 76), ("base64", 64), ("hex", 60)])
def test_no_line_of_a_long_secrets_encoding_is_left_wherever_it_begins(how: str, columns: int) -> None:
    secret = json.dumps({"id": 7, "key": PEM * 3})
    redactor = Redactor([secret])
    encode = WRAPPED[how][0]
    for ahead in range(1, 58):
        encoded = encode(b"x" * ahead + secret.encode() + b"@host")
        text = b"\n".join(encoded[at : at + columns] for at in range(0, len(encoded), columns))
        *_, left = b"".join(redacted(redactor, text, [100_000])).split(MARK)
        assert len(left) < 20
