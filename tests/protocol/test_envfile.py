"""Env files and `--env`, in docker's notation."""

from __future__ import annotations

import pytest

from airunner.protocol.envfile import ENV_FILE_BYTES_MAX, variable_of, variables_in
from airunner.protocol.errors import OperatorError

ENVIRON = {"SHELL_HAS": "it", "EMPTY": ""}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("A=1", {"A": "1"}),
        ("A=x=y", {"A": "x=y"}),
        ("A=", {"A": ""}),
        ('A="quoted # text" ', {"A": '"quoted # text" '}),
        ("A=$SHELL_HAS\\n", {"A": "$SHELL_HAS\\n"}),
        ("  A=1\r", {"A": "1"}),
        ("\t# A=1\n\n   \r\nB=2", {"B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("SHELL_HAS\nEMPTY\nUNSET", {"SHELL_HAS": "it", "EMPTY": "", "UNSET": None}),
        ("\ufeffA=\u00e9", {"A": "\u00e9"}),
        ("export-ed.name=1", {"export-ed.name": "1"}),
        ("", {}),
    ],
)
def test_an_env_file_is_read_as_docker_reads_it(line: str, found: dict[str, str | None]) -> None:
    assert variables_in(line.encode(), "job.env", ENVIRON) == found


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"A=1\n=x", "job.env, line 2: expected NAME=VALUE, or NAME for a variable of your environment, not '=x'"),
        (b"export A=1", "job.env, line 1: the name 'export A' contains white space; expected NAME=VALUE"),
        (b"A=1\n\nB=\xff", "job.env, line 3: byte 0xff is not UTF-8 text"),
        (b"KEY=MHcC\nIG+/x1", "job.env, line 2: expected NAME=VALUE, or NAME for a variable of your environment; an"),
        (b"A=\0", "job.env, line 1: 'A': a variable cannot contain a NUL character"),
        (b"#" * (ENV_FILE_BYTES_MAX + 1), f"job.env is larger than {ENV_FILE_BYTES_MAX} bytes"),
    ],
)
def test_a_mistake_in_an_env_file_is_named_with_its_line(raw: bytes, message: str) -> None:
    with pytest.raises(OperatorError) as error:
        variables_in(raw, "job.env", ENVIRON)
    assert error.value.message.startswith(message)


@pytest.mark.parametrize("word", ["A B=c", " A=c", "A\t=c", "A B"])
def test_a_name_with_white_space_is_refused_by_an_option_too(word: str) -> None:
    with pytest.raises(OperatorError, match="contains white space; expected NAME=VALUE"):
        variable_of(word, ENVIRON)


def test_a_name_alone_takes_its_value_from_the_environment() -> None:
    assert variable_of("SHELL_HAS", ENVIRON) == ("SHELL_HAS", "it")
    assert variable_of("SHELL_HAS=", ENVIRON) == ("SHELL_HAS", "")
    assert variable_of("UNSET", ENVIRON) == ("UNSET", None)
