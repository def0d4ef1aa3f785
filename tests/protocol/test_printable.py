"""Words of others are seen as they are or escaped, and make no line that looks like one of airunner's."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.fields import JobSpec
from airunner.protocol.printable import escaped, is_plain, json_line, one_line, own_lines, shell_line
from airunner.protocol.requests import EnqueueJob

UNSEEN = ["\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066", "\u2028", "\u034f", "\u3164", "\ufe0f"]
UNSEEN += ["\U000e0001", "\U000e0100", "\x1b", "\x9b", "\x7f", "\u00a0", "\r", "\n", "\t"]


@pytest.mark.parametrize("char", UNSEEN)
def test_what_is_not_seen_stands_in_no_name_and_is_escaped_where_it_is_shown(char: str) -> None:
    assert not is_plain(f"a{char}b")
    assert one_line(f"a{char}b") in {"a b", f"a\\x{ord(char):02x}b", f"a\\u{ord(char):04x}b", f"a\\U{ord(char):08x}b"}
    for fields in (
        {"owner": f"ada{char}"},
        {"metadata": {f"k{char}": ""}},
        {"environment": {f"K{char}": ""}},
        {"secrets": (f"K{char}",)},
        {"branch": f"main{char}", "repository": "/p"},
        {"commit": f"v1{char}", "repository": "/p"},
        {"repository": f"https://host/x{char}"},
    ):
        with pytest.raises(ValueError, match="invisible") as refused:
            EnqueueJob(jobs=(msgspec.convert({"command": "true", **fields}, JobSpec),))
        assert is_plain(str(refused.value))


@pytest.mark.parametrize("text", ["", "grün", "日本語", "a b", "שלום", "🚀", "e\u0301", "feature/ü-1"])
def test_what_is_seen_is_left(text: str) -> None:
    assert one_line(text) == own_lines(text) == text
    branch = text.replace(" ", "-")
    EnqueueJob(
        jobs=(JobSpec(command="true", owner=text, metadata={f"k{text}": "\u200b"}, branch=branch, repository="/p"),)
    )


@given(st.text())
def test_a_message_has_one_first_line_and_nothing_unseen(text: str) -> None:
    first, *more = own_lines(text).split("\n")
    assert is_plain(first)
    assert all(line.startswith("| ") and is_plain(line) for line in more)
    assert is_plain(one_line(text))
    assert is_plain(escaped(text))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_is_plain_and_means_the_same(text: str) -> None:
    assert is_plain(json_line({"x": text}))
    assert msgspec.json.decode(json_line({"x": text})) == {"x": text}


def test_a_word_of_a_command_line_is_quoted_so_that_a_shell_reads_it_as_it_was() -> None:
    assert shell_line(["a b", "x", "it's"]) == """'a b' x 'it'"'"'s'"""
    assert (
        shell_line(["a\nb", "it's\t\x01", "\u202e", "\U000e0001"]) == r"$'a\nb' $'it\'s\t\001' $'\u202e' $'\U000e0001'"
    )
