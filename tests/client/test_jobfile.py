"""Job files: what is read, and what is told about what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.client.jobfile import FILE_BYTES_MAX, KEYS, parse_job_file, read_job_file
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import TerminalSize
from airunner.protocol.retrypolicy import RetryOn, RetryPolicy

WHOLE = b"""
command: make
args: [test, -j, 4]
processType: PTY
timeout: 600
workingDirectory: src
environment: {LEVEL: 3, RATIO: 0.5, NAME: x}
metadata: {ticket: A-1}
repository: https://example.org/x.git
commit: abc
branch: main
owner: ann
queue: fast
priority: -3
notBefore: 2027-01-31T03:00:00Z
maxAttempts: 5
retry: {limit: 2, on: [75, SIGKILL], backoff: 0.5}
secrets: [NPM_TOKEN]
secretFiles: [DEPLOY_KEY]
terminal: {cols: 120}
depth: 1
submodules: true
require: {os: linux}
"""


def test_every_key_is_read() -> None:
    fields = parse_job_file(WHOLE, "job.yaml")
    assert set(fields) == {field for field, _ in KEYS.values()}
    assert fields["args"] == ("test", "-j", "4")
    assert fields["process_type"] == "pty"
    assert fields["timeout_seconds"] == 600
    assert fields["not_before_ms"] == 1_801_364_400_000
    assert fields["retry"] == RetryPolicy(limit=2, backoff_ms=500, on=RetryOn(exit_codes=(75,), signals=(9,)))
    assert (fields["secrets"], fields["secret_files"]) == (("NPM_TOKEN",), ("DEPLOY_KEY",))
    assert (fields["depth"], fields["submodules"]) == (1, True)
    assert (fields["terminal"], fields["require"]) == (TerminalSize(cols=120, rows=24), {"os": "linux"})
    assert fields["environment"] == {"LEVEL": "3", "RATIO": "0.5", "NAME": "x"}


def test_no_retry_and_a_number_of_them_are_policies_too() -> None:
    assert parse_job_file(b"retry: 0", "job.yaml") == {"retry": None}
    assert parse_job_file(b"retry: 3", "job.yaml") == {"retry": RetryPolicy(limit=3)}


def test_a_time_from_now_counts_from_now() -> None:
    assert parse_job_file(b"notBefore: +10m", "job.yaml", 1_000) == {"not_before_ms": 601_000}


def test_json_is_read_too() -> None:
    assert parse_job_file(b'{"command": "true", "args": []}', "job.json") == {"command": "true", "args": ()}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("commnad: x", "unknown key 'commnad'"),
        ("1: x", "unknown key 1"),
        ("command: [a]", "command: expected text, not a list"),
        ("command: yes", "command: expected text, not true; put it in quotes"),
        ("args: test", "args: expected a list of texts such as [test, --fast], not the text 'test'"),
        ("args: [a, null]", "args: item 2: expected text, not nothing; put it in quotes"),
        ("timeout: 10s", "timeout: expected a whole number of seconds from 1 on, not the text '10s'"),
        ("timeout: 0", "timeout: expected a whole number of seconds from 1 on, not the number 0"),
        ("timeout: true", "timeout: expected a whole number of seconds from 1 on, not true"),
        ("processType: tty", "processType: expected pipe or pty, not the text 'tty'"),
        ("environment: [A=1]", "environment: expected names and texts such as {LEVEL: high}, not a list"),
        ("environment: {A: no}", "environment: A: expected text, not false; put it in quotes"),
        ("environment: {1: a}", "environment: expected names that are text, not the number 1"),
        ("branch: 1.10", "branch: expected text, not the number 1.1; put it in quotes"),
        ("commit: 2024-01-01", "commit: expected text, not a date"),
        ("priority: high", "priority: expected a whole number, not the text 'high'"),
        ("notBefore: 2027-01-31T03:00:00", "notBefore: '2027-01-31T03:00:00' does not say how far it is from UTC"),
        ("notBefore: tomorrow", "notBefore: 'tomorrow': expected an instant with its offset"),
        ("retry: yes", "retry: expected a whole number, not true"),
        ("retry: {on: [1]}", "retry: expected a whole number, not nothing"),
        ("retry: {limit: 1, onn: [1]}", "retry: unknown key 'onn'; the keys are limit, on, backoff, maxBackoff"),
        ("retry: {limit: 1, on: [SIGNONE]}", "retry: 'SIGNONE' is neither an exit code nor a signal"),
        ("retry: {limit: 1, on: [0]}", "retry: 0 is no exit code of a failure"),
        (
            "retry: {limit: 1, backoff: -1}",
            "retry: backoff: expected a number of seconds up to 86400, not the number -1",
        ),
        ("retry: {limit: 1, backoff: .inf}", "retry: backoff: expected a number of seconds up to 86400"),
        ("terminal: 80x24", "terminal: expected a size such as {cols: 120, rows: 40}, not the text '80x24'"),
        ("terminal: {colz: 80}", "terminal: expected a size such as {cols: 120, rows: 40}, not a mapping"),
        ("terminal: {cols: 0}", "terminal: expected sides from 1 to 10000"),
        ("submodules: all", "submodules: expected true or false, not the text 'all'"),
        ("secrets: TOKEN", "secrets: expected a list of texts"),
        ("require: [linux]", "require: expected names and texts"),
        ("- a", "expected keys and values such as `command: make`, not a list"),
        ("", "expected keys and values such as `command: make`, not nothing"),
        ("command: [", "is neither YAML nor JSON"),
        ("command: !!python/object:os.system x", "is neither YAML nor JSON"),
        ("[" * 5_000, "is neither YAML nor JSON"),
        ("\0", "is neither YAML nor JSON"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_was_expected(content: str, told: str) -> None:
    with pytest.raises(OperatorError) as error:
        parse_job_file(content.encode(), "job.yaml")
    assert told in error.value.message
    assert error.value.message.startswith("job.yaml")
    assert "\n" not in error.value.message
    assert error.value.exit_code == 2


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(OperatorError, match="cannot read"):
            read_job_file(path)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(OperatorError, match=f"larger than {FILE_BYTES_MAX} bytes"):
        read_job_file(Path("/dev/zero"))
