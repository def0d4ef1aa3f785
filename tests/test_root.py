"""How the program ends, whatever a command raises."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from airunner import __main__ as root
from airunner.protocol.errors import NotFound, OperatorError

A_PROBLEM = OperatorError("do this instead", exit_code=69)


def ends(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code when a command raises `error`."""

    def command(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(root, "make_app", lambda _named: command)
    return root.run([])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (A_PROBLEM, 69, "airunner: do this instead\n"),
        (NotFound("no such job"), 1, "airunner: no such job\n"),
        (OSError(28, "No space left on device", "/some/file"), 1, "airunner: /some/file: No space left on device\n"),
        (OSError(24, "Too many open files"), 1, "airunner: Too many open files\n"),
        (BaseExceptionGroup("", [ExceptionGroup("", [A_PROBLEM])]), 69, "airunner: do this instead\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=repr,
)
def test_what_can_be_mended_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(monkeypatch, error) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("ours", [AssertionError(), ExceptionGroup("", [A_PROBLEM, ValueError()])], ids=repr)
def test_a_bug_of_ours_is_never_hidden(ours: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(ours)):
        ends(monkeypatch, ours)


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["--version"]) == 0
    assert version("airunner") in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--mirror-gib", "--spool-gib", "--tenant-gib", "--machine-connections"])
@pytest.mark.parametrize("value", ["inf", "1e300"])
def test_a_number_that_is_no_amount_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = "broker" if option in ("--tenant-gib", "--machine-connections") else "agent"
    assert root.run([command, option, value]) == 2
    assert option in capsys.readouterr().err
