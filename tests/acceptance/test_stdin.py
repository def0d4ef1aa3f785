"""What stands on a client's standard input is the job's; its exit code does not depend on the standard streams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airunner.protocol.fields import STDIN_BYTES_MAX
from tests.acceptance.running import Cluster, environment, run, submitted

EVERY_BYTE = bytes(range(256)) * (STDIN_BYTES_MAX // 256)


@pytest.mark.parametrize(
    ("words", "given", "code", "out"),
    [
        (("--", "sh"), b"exit 3\n", 3, b""),
        (("--", "bash", "-s", "x", "y"), b"echo $# $1 $2; read line; echo $line\nthe rest\n", 0, b"2 x y\nthe rest\n"),
        (("--", "cat"), EVERY_BYTE, 0, EVERY_BYTE),
        (("--no-stdin", "--", "wc", "-c"), b"exit 3\n", 0, b"0\n"),
        (("--pty", "--", "sh"), b"exit 3\n", 3, b""),
        (("-f", "-"), b"{command: wc, args: [-c]}", 0, b"0\n"),
    ],
)
def test_a_jobs_stdin_is_what_the_client_got(
    standing: Cluster, tmp_path: Path, words: tuple[str, ...], given: bytes, code: int, out: bytes
) -> None:
    submitted = standing.airunner("submit", *words, given=given)
    alone = run(environment(tmp_path), "run", *words, given=given)
    for done in (submitted, alone):
        assert (done.returncode, done.stdout) == (code, out), done.stderr


def test_the_size_of_stdin_is_shown_and_a_repeat_with_another_is_refused(standing: Cluster) -> None:
    once = ("submit", "--no-monitor", "--request-id", "stdin once", "--", "sh")
    first, again, other = (standing.airunner(*once, given=given) for given in (b"exit 3", b"exit 3", b"exit 4"))
    assert (first.stdout, other.returncode) == (again.stdout, 65)
    assert b"conflict" in other.stderr or b"request id" in other.stderr
    job_id = first.stdout.decode().strip()
    assert standing.airunner("wait", job_id).returncode == 3
    assert standing.airunner("retry", job_id).returncode == 3
    shown = [standing.airunner("show", *words, job_id).stdout.decode() for words in ((), ("--json",))]
    assert "stdin:        6 bytes\n" in shown[0]
    assert json.loads(shown[1])["spec"] == {"command": "sh", "stdin_bytes": 6}
    assert all("exit 3\n" not in one for one in shown)


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
@pytest.mark.parametrize("command", ["submit", "run", "monitor"])
def test_the_exit_code_is_the_jobs_whatever_the_standard_streams_are(
    standing: Cluster, command: str, redirected: str
) -> None:
    job = ("--", "sh", "-c", "echo out; echo err >&2; exit 7")
    given = (submitted(standing, *job),) if command == "monitor" else job
    words = ["sh", "-c", f'exec "$0" -m airunner "$@" {redirected}', sys.executable, command, *given]
    done = subprocess.run(
        words, env=standing.environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (
        7,
        b"" if redirected.startswith(">") or "<&- " in redirected else b"out\n",
    )
