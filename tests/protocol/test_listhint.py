"""What looks like a list, and what surely is none."""

from __future__ import annotations

import pytest

from airunner.protocol.listhint import command_hint, pairs_hint, words_hint

SEVERAL = ["A=1;B=2", "A=1,B=2", "A=1; B=2", "stage=dev,team=x", "os=linux,arch=arm64", "A=,B="]
SINGLE = ["A=1;2", "A=a,b", "OPTS=rw,size=1m", "CONN=Server=x;Database=y;User=z", "URL=https://h/?A=1;B=2"]
SINGLE += ["LS_COLORS=di=01;34:ln=01", 'J={"a": 1, "b": 2}', "MSG=hello, this is = prose", "PATH=/a:/b"]


def test_pairs_that_look_like_several_get_a_hint_and_values_that_only_hold_commas_none() -> None:
    for pair in SEVERAL:
        hint = pairs_hint("--env", ["X=1", pair])
        assert pair in hint
        assert "repeat --env" in hint
    assert {pair: pairs_hint("--env", [pair]) for pair in SINGLE} == dict.fromkeys(SINGLE)


def test_a_command_with_its_arguments_gets_a_hint_and_a_path_with_blanks_none() -> None:
    assert "'make test' is the name of one program" in (command_hint("make test") or "")
    assert [command_hint(command) for command in ("make", " make ", "", "/opt/my tools/run")] == [None] * 4


@pytest.mark.parametrize("word", ["-c,echo a", "-v,-x", "--fast,test", "test,lint", "a;b;c"])
def test_a_lone_word_that_looks_like_several_gets_a_hint(word: str) -> None:
    assert "repeat --args" in (words_hint("--args", [word]) or "")


@pytest.mark.parametrize(
    "words", [["-Wl,-rpath,/x"], ["a, b"], ["1,2,3"], ['{"a":1,"b":2}'], ["-c", "a,b"], ["--keys=a,b"], ["echo a; ls"]]
)
def test_other_words_get_none(words: list[str]) -> None:
    assert words_hint("--args", words) is None
