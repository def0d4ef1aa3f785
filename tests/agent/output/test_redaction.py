"""Nothing of a job's secrets reaches the spool, whatever carries it: cut anywhere, encoded, or overlapped."""

from __future__ import annotations

import base64
import doctest
import html
import json
import re
import secrets
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airunner.agent.attempt.jobsecrets import JobSecrets, values_to_redact
from airunner.agent.output import escapes
from airunner.agent.output import redactor as redactor_module
from airunner.agent.output.escapes import Reading, folded
from airunner.agent.output.patterns import patterns_of
from airunner.agent.output.redactor import Redactor, TooManySecrets
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    GitCloneError,
    GitCloneProgress,
    GitCloneStart,
    Output,
    ProcessError,
    ProcessStart,
    Stream,
)
from airunner.protocol.fields import JobSpec
from tests.agent.output.recording import recorder_in, taken
from tests.counting import counted_calls

SECRET = "hunter2correct"


def spooled(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_no_event_carries_a_secret_to_the_disk(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.redact_with(Redactor([SECRET]))
    said = f"see {SECRET}, or https://x/?{SECRET}"
    recorder.add(GitCloneStart(timestamp_ms=1, repository=said, commit=SECRET, branch=SECRET))
    recorder.add(GitCloneProgress(timestamp_ms=1, message=said))
    recorder.add(GitCloneError(timestamp_ms=1, message=said))
    recorder.add(ProcessStart(timestamp_ms=1, pid=1, started_at=1))
    recorder.add(ProcessError(timestamp_ms=1, message=said))
    for piece in (b"pass: hun", b"ter2co", b"rrect\n", b"hunter2"):
        await recorder.add_output(Stream.STDOUT, piece, 1)
        await recorder.add_output(Stream.STDERR, piece, 1)
    recorder.end_output(1)
    bodies = taken(recorder)
    assert SECRET.encode() not in spooled(tmp_path)
    assert spooled(tmp_path).count(b"[REDACTED]") == 3 + 4 * 1 + 2 + 2 + 1
    for stream in Stream:
        written = b"".join(body.data for body in bodies if isinstance(body, Output) and body.stream is stream)
        assert written == b"pass: [REDACTED]\nhunter2", "what was held back comes with the end"


async def test_what_grows_by_its_marks_still_fits_every_bound(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.redact_with(Redactor(["x"]))
    await recorder.add_output(Stream.STDOUT, b"x" * OUTPUT_BYTES_MAX, 1)
    recorder.add(ProcessError(timestamp_ms=1, message="x" * 16_384))
    *outputs, said = taken(recorder)
    assert b"".join(body.data for body in outputs if isinstance(body, Output)) == b"[REDACTED]" * OUTPUT_BYTES_MAX
    assert isinstance(said, ProcessError)
    assert len(said.message) == 16_384


def test_the_secrets_of_a_job_and_of_its_operator_are_redacted() -> None:
    environment = {
        "DEPLOY_TOKEN": "abcdef",
        "Api_Key": "true",
        "login": "hush",
        "KEYBOARD": "qwertz",
        "MY_PIN": "123456",
    }
    named = JobSpec(
        command="curl",
        args=("https://u:hunter2@host/",),
        repository="https://u:hunter3@host/",
        environment=environment,
        secrets=("login",),
        no_redact=("DEPLOY_TOKEN", "MY_PIN"),
    )
    secrets = JobSecrets({"login": "hush"}, {"FILE": b"in it"})
    operators = {"DEPLOY_TOKEN": "operator's", "HTTPS_PROXY": "http://u:hunter4@proxy:1", "MODE": "fast"}
    found = values_to_redact(named, secrets, operators, ("*_pin",))
    assert sorted(found.hidden) == ["123456", "hunter2", "hunter3", "hunter4", "hush", "in it", "operator's"]
    assert found.shown == ("Api_Key",)


MARK = b"[REDACTED]"
TOKEN = "s3cr3t/T0ken+with?odd=chars"
PEM = "-----BEGIN KEY-----\n" + "\n".join(base64.b64encode(bytes([n]) * 48).decode() for n in range(9)) + "\n-----END\n"

INDENTED = "".join(f"    {line}\n" for line in PEM.splitlines())

small = st.text(alphabet="ab\n/", min_size=1, max_size=5)
anything = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def redacted(redactor: Redactor, text: bytes, sizes: list[int]) -> list[bytes]:
    """What comes out of it when `text` comes in pieces of these sizes, over and over; the last is what was held."""
    stream = redactor.stream()
    passed: list[bytes] = []
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        passed.append(stream.feed(text[at : at + size]))
        at += size
        turn += 1
    return [*passed, stream.finish()]


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


PIECES = (
    "a",
    "b",
    "/",
    "\n",
    "\\",
    "%2",
    "%2f",
    "%25",
    "5",
    "&",
    "amp",
    ";",
    "#x2f;",
    "\\n",
    "u00",
    "2f",
    "'",
    "\x1b[",
    "0m",
    "ab/a",
)


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


def test_a_line_that_ends_as_an_encoding_begins_goes_on_with_its_end() -> None:
    redactor = Redactor([TOKEN])
    for letter in {chr(pattern[0]) for pattern in patterns_of([TOKEN], 1_000).folds}:
        assert redactor.stream().feed(f"step {letter}\n".encode()).endswith(b"\n")


def test_what_is_spread_over_more_than_white_space_of_its_own_length_is_not_waited_for() -> None:
    stream = Redactor([TOKEN]).stream()
    begun = base64.b64encode(TOKEN.encode())[:12]
    assert stream.feed(begun + b"\n") == b""
    assert stream.feed(b" " * 1_000) == begun + b"\n" + b" " * 1_000


@given(secret=anything, text=st.binary(max_size=200), sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4))
def test_where_no_secret_stands_nothing_changes(secret: str, text: bytes, sizes: list[int]) -> None:
    out = b"".join(redacted(Redactor([secret]), text, sizes))
    assert out == text or MARK in out


@pytest.mark.parametrize(
    "text",
    ["$ ", "Password: ", "Continue? [y/N] ", "[####] 10 %\r", "a && b\n", "\\ \n", "\x1b[0m", "%" * 5_000 + "\n"],
)
def test_what_begins_no_secret_is_not_waited_for(text: str) -> None:
    assert Redactor([TOKEN, PEM]).stream().feed(text.encode()) == text.encode()


@pytest.mark.parametrize("size", [11, 1_000, 65_536])
@pytest.mark.parametrize("how", ENCODINGS)
def test_a_key_of_many_lines_leaves_none_of_them(how: str, size: int) -> None:
    text = b"before\n" + ENCODINGS[how](PEM.encode(), b"x") + b"\nafter\n"
    out = b"".join(redacted(Redactor([PEM]), text, [size]))
    assert b"fore" in out
    for line in PEM.encode().splitlines():
        assert line not in out
        assert base64.b64encode(line) not in out


def bash_quoted(text: str) -> str:
    """What `printf %q` of bash prints for a text without control characters."""
    return re.sub(r"([^A-Za-z0-9_@%+=:,./-])", r"\\\1", text)


def one_line(text: str) -> str:
    """What `echo $KEY` prints."""
    return " ".join(text.split())


def for_pages(text: str) -> str:
    """JSON as Go, Rails and PHP write it into pages."""
    return json.dumps(text).translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&"}).replace("/", "\\/")


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


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
        (ODD, bash_quoted(ODD)),
        (ODD, "$'" + ODD.replace("'", "\\'").replace("ä", r"\303\244").replace("€", r"\342\202\254") + "'"),
        (ODD, shlex.quote(shlex.quote(ODD))),
        (ODD, html.escape(ODD)),
        (ODD, html.escape(html.escape(ODD))),
        (ODD, html.escape(ODD).replace("&#x27;", "&apos;").replace("ä", "&auml;").replace("€", "&#8364;")),
        (ODD, "".join(f"&#X{ord(char):04X};" for char in ODD)),
        (ODD, bash_quoted(html.escape(ODD))),
        ("000000a", "C:\\" + "".join(f"&#{ord(char)};" for char in "000000a")),
        (ODD, "'" + ODD.replace("'", "''") + "'"),
        (ODD, json.dumps(ODD)),
        (ODD, for_pages(ODD)),
        (ODD, for_pages(json.dumps(ODD))),
        (ODD, re.sub("u00..", lambda escape: escape[0][:3] + escape[0][3:].upper(), for_pages(ODD))),
        (ODD, ascii(ODD)),
        (ODD, repr(ODD.encode())),
        (ODD, quote(ODD).lower()),
        (ODD, quote(ODD, safe="<>;").replace("%C3%A4", "%c3%A4")),
        (ODD, quote(quote(ODD))),
        (ODD, quote(html.escape(ODD))),
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


def test_a_beginning_of_a_secret_before_white_space_is_not_waited_for_and_the_rest_is_covered() -> None:
    for shown in (1, 2, 3):
        stream = Redactor([TOKEN]).stream()
        assert stream.feed(f"step {TOKEN[:shown]}\n".encode()) == f"step {TOKEN[:shown]}\n".encode()
        assert stream.feed(f"{TOKEN[shown:]}\n".encode()) == b"[REDACTED]\n"


@pytest.mark.parametrize("secret", ["abcde", "a b c", "x=1"])
def test_a_value_under_six_bytes_is_a_pattern_only_as_it_is(secret: str) -> None:
    patterns = patterns_of([secret], 1_000)
    assert (patterns.literal, patterns.folds) == ({secret.encode()}, {})


def test_pieces_under_six_bytes_of_a_secret_stay_readable() -> None:
    assert Redactor(["{\n  id: 7\n  type: robot\n}\n"]).text("id: 7, {} type: robot") == "id: 7, {} [REDACTED]"


def test_one_line_of_a_key_alone_is_covered_too() -> None:
    line = PEM.splitlines()[4]
    assert Redactor([PEM]).text(f"> {line} <") == "> [REDACTED] <"


def test_without_secrets_a_piece_is_the_same_object() -> None:
    piece = b"x" * 100
    assert Redactor().stream().feed(piece) is piece


def test_a_secret_longer_than_any_buffer_is_covered_from_end_to_end() -> None:
    secret = secrets.token_hex(10_000)
    out = b"".join(redacted(Redactor([secret]), b"<" + secret.encode() + b">", [4_096]))
    assert out.replace(MARK, b"") == b"<>"


def test_a_short_secret_is_taken_literally_only() -> None:
    assert Redactor(["ab"]).text("ab YWI= abc") == "[REDACTED] YWI= [REDACTED]c"


def test_the_colours_around_a_secret_stay() -> None:
    assert Redactor([TOKEN]).text(f"\x1b[31m{TOKEN}\x1b[0m.") == "\x1b[31m[REDACTED]\x1b[0m."


def test_a_message_keeps_the_bytes_that_are_no_text() -> None:
    assert Redactor([TOKEN]).text(f"\udcff {TOKEN}") == "\udcff [REDACTED]"


def test_a_secret_that_a_message_was_cut_in_leaves_no_beginning() -> None:
    message = f"  12 curl {TOKEN[:-3]}\n  13 sh -c s3c\n  14 {TOKEN} {TOKEN[:9]}"
    assert Redactor([TOKEN]).text(message) == "  12 curl [REDACTED]\n  13 sh -c s3c\n  14 [REDACTED] [REDACTED]"


def test_more_than_can_be_looked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redactor_module, "PATTERNS_MAX", 3)
    with pytest.raises(TooManySecrets):
        Redactor([TOKEN])


@pytest.mark.parametrize(
    "line", [b'{"a": "b%%20c\\n", "n": %d}\n', b"%d%% 50 files & more\n", b"\x1b[32mdone\x1b[0m %d\n"]
)
def test_a_search_runs_no_code_for_each_line(line: bytes) -> None:
    stream = Redactor([PEM]).stream()
    piece = b"".join(line % number for number in range(4_000))[:OUTPUT_BYTES_MAX]
    with counted_calls() as calls:
        logged = [stream.feed(piece), stream.finish()]
    assert b"".join(logged) == piece
    assert calls.total() <= 1_000, "of 64 KiB with up to 4,000 escapes"


def test_the_worked_example_of_readings_holds() -> None:
    assert doctest.testmod(escapes) == (0, 5)
