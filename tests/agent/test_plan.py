"""What an agent is to do, from the options of its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.agent.plan import VARIABLES_CHARS_MAX, offered_secrets, operators_variables, safe_paths, tags_of
from airunner.protocol.errors import OperatorError


@pytest.mark.parametrize("tag", ["os", "=linux", "o s=x", "os=" + "x" * 200])
def test_a_tag_that_is_none_is_told(tag: str) -> None:
    with pytest.raises(OperatorError, match="expected TAG=VALUE"):
        tags_of([tag], print)


def test_a_safe_directory_is_an_absolute_path_or_all() -> None:
    assert safe_paths(["/srv/with space", "*"]) == ("/srv/with space", "*")
    for path in ("", "srv", "~/x", "/srv/a\nb", "**"):
        with pytest.raises(OperatorError, match="expected the absolute path of a repository"):
            safe_paths([path])


def test_a_secret_that_an_agent_does_not_have_keeps_it_from_starting() -> None:
    assert offered_secrets(["A"], {"A": "1", "B": "2"}) == {"A": "1"}
    with pytest.raises(OperatorError, match="--secret NO_SUCH: there is no such variable"):
        offered_secrets(["NO_SUCH"], {})


def test_the_operators_variables_come_from_files_and_options_and_the_last_value_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"# proxies\r\nHTTPS_PROXY=http://proxy:3128\r\n\r\nA=a=b \nOWN\nEMPTY=\n")
    second.write_text("A=2\nB=#2")
    assert operators_variables([], [first], {"OWN": "own"}) == {
        "HTTPS_PROXY": "http://proxy:3128",
        "A": "a=b ",
        "OWN": "own",
        "EMPTY": "",
    }
    given = operators_variables(["B=3", "OWN", "OWN=4"], [first, second], {"OWN": "own"})
    assert (given["A"], given["B"], given["OWN"]) == ("2", "3", "4")


@pytest.mark.parametrize(
    ("words", "content", "said"),
    [
        (["NO_SUCH"], "", "--env NO_SUCH: there is no such variable in the agent's environment"),
        (["=x"], "", "--env expected NAME=VALUE"),
        (["AIRUNNER_JOB_ID=x"], "", "--env AIRUNNER_JOB_ID: variables that begin with AIRUNNER are set by the agent"),
        ([], "AIRUNNER=x", "file: AIRUNNER: variables that begin"),
        ([], "A=1\nexport B=2\n", "line 2: the name 'export B' contains white space"),
        ([], None, "cannot be read: No such file"),
        ([], "A=" + "x" * VARIABLES_CHARS_MAX, f"more than {VARIABLES_CHARS_MAX} characters"),
    ],
)
def test_variables_that_an_operator_cannot_give_keep_an_agent_from_starting(
    tmp_path: Path, words: list[str], content: str | None, said: str
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    with pytest.raises(OperatorError, match=said):
        operators_variables(words, [file], {})


def test_an_env_file_that_others_could_change_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("A=1")
    (tmp_path / "file").chmod(0o666)
    with pytest.raises(OperatorError, match="is not safe to use"):
        operators_variables([], [tmp_path / "file"], {})
