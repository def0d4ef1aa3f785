"""How the program ends, whatever a command raises."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from airunner import __main__ as root
from airunner import commandline
from airunner.protocol.errors import NotFound, OperatorError

A_PROBLEM = OperatorError("do this instead", exit_code=69)


def ends(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code when a command raises `error`."""

    def command(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(commandline, "make_app", lambda _named: command)
    return root.run(["list"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (A_PROBLEM, 69, "airunner: do this instead\n"),
        (NotFound("no such job"), 66, "airunner: no such job\n"),
        (OSError(28, "No space left on device", "/some/file"), 74, "airunner: /some/file: No space left on device\n"),
        (OSError(24, "Too many"), 74, "airunner: Too many; raise the limit with `ulimit -n 1024`\n"),
        (OSError(5, "Input/output error"), 74, "airunner: Input/output error\n"),
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
    for option in ("--version", "-V"):
        assert root.run([option]) == 0
        assert capsys.readouterr().out == f"airunner {version('airunner-jobs')}\n"


@pytest.mark.parametrize("option", ["--mirror-gib", "--spool-gib", "--tenant-gib", "--machine-connections"])
@pytest.mark.parametrize("value", ["inf", "1e300"])
def test_a_number_that_is_no_amount_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = "broker" if option in ("--tenant-gib", "--machine-connections") else "agent"
    assert root.run([command, option, value]) == 64
    assert option in capsys.readouterr().err


def process(code: str, redirected: str = "") -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a new interpreter that runs `code`."""
    words = ["sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, code]
    done = subprocess.run(words, capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


MAIN = "from airunner.__main__ import main; import sys; sys.argv[1:] = {}; main()"
FULL = b"airunner: cannot write the output: No space left on device\n"


@pytest.mark.parametrize(
    ("redirected", "ended"),
    [
        (">&-", (74, b"", b"airunner: cannot write the output: stdout is closed\n")),
        (">/dev/full", (74, b"", FULL)),
        (">&- 2>&-", (74, b"", b"")),
        (">/dev/full 2>/dev/full", (74, b"", b"")),
    ],
)
def test_a_result_that_cannot_be_written_is_an_error(redirected: str, ended: tuple[int, bytes, bytes]) -> None:
    assert process(MAIN.format(["--version"]), redirected) == ended


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("--nonsense", 64)])
def test_a_message_that_cannot_be_written_changes_no_exit_code(redirected: str, word: str, code: int) -> None:
    assert process(MAIN.format([word]), redirected)[0] == code


@pytest.mark.parametrize("redirected", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_descriptor_of_a_closed_standard_stream(redirected: str) -> None:
    code = "import os; from airunner import __main__ as root; root.run = lambda _: os.open('/', 0); root.main()"
    assert process(code, redirected)[0] > 2


INTERRUPTED = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from airunner.__main__ import main
sys.argv[1:] = ["list"]
main()
"""


@pytest.mark.parametrize("module", ["typer", "msgspec", "airunner.client.cli.joblist"])
def test_ctrl_c_during_the_imports_ends_without_a_word(module: str) -> None:
    assert process(INTERRUPTED.format(module)) == (130, b"", b"")


ENDING = """
import atexit, os, signal, sys
from airunner import __main__ as root
atexit.register(os.kill, os.getpid(), signal.SIGINT)
root.run = lambda _: sys.stderr.write("asked? ")
root.main()
"""


def test_ctrl_c_while_python_ends_changes_no_exit_code() -> None:
    assert process(ENDING) == (len("asked? "), b"", b"asked? ")


@pytest.mark.parametrize(
    ("given", "words", "told"),
    [
        ("mkdir gone; cd gone; rmdir ../gone", ["certs", "list"], b"the working directory does not exist any more"),
        ("export TMPDIR=$PWD/none", ["run", "--", "true"], b"none: No such file or directory; set TMPDIR to a folder"),
        ("touch f; export TMPDIR=$PWD/f", ["run", "--", "true"], b"f: Not a directory; set TMPDIR to a folder"),
        ("exec <&-", ["run", "-f", "-"], b"--config: cannot read -: Bad file descriptor"),
        ("ulimit -n 12", ["list"], b"this process may open only 12 files: run `ulimit -n 1024` first"),
    ],
)
def test_an_odd_surrounding_is_told_with_what_to_do(
    given: str, words: list[str], told: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRUNNER_HOME", "relative")
    script = f'{given}; exec "$0" -c "$1"'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, MAIN.format(words)],
        capture_output=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(root.__file__).parents[1])},
    )
    assert (done.returncode in (64, 74), told in done.stderr, done.stderr.count(b"\n")) == (True, True, 1), done.stderr
