"""Job sets: a matrix is submitted at once, waited for, and told of cell by cell."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from tests.acceptance.running import Cluster, start

FILE = """
name: tests
matrix: {shard: [1, 2, 3, 4]}
command: sh
args: [-c, "echo {{matrix.shard}}; test {{matrix.shard}} != 3 || { echo three is broken >&2; exit 7; }"]
"""


def test_a_matrix_runs_to_its_end_and_its_table_says_which_cell_failed_and_why(
    standing: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(FILE)
    done = standing.airunner("submit", "-f", str(file))
    assert done.returncode == 7, done.stderr
    heading, *rows = done.stdout.decode().splitlines()
    assert heading.split("  ")[0] == "ID"
    assert [" ".join(row.split()[1:]) for row in rows] == [
        *(f"tests ({shard}) COMPLETED 0 -" for shard in (1, 2)),
        "tests (3) FAILED 7 7 three is broken",
        "tests (4) COMPLETED 0 -",
    ]
    assert standing.airunner("list", "-q", "-n", "4").stdout.decode().split() == [row.split()[0] for row in rows[::-1]]
    assert b"3 of 4 jobs completed, 1 did not" in done.stderr
    asked = ("submit", "--detach", "--request-id", "once", "--queue", "off", "-f", str(file))
    first, second = (standing.airunner(*asked).stdout.split() for _ in range(2))
    assert (len(first), first) == (4, second)
    names = [json.loads(line)["name"] for line in standing.airunner("list", "--json", "-n", "4").stdout.splitlines()]
    assert names == [f"tests ({shard})" for shard in (4, 3, 2, 1)]
    waiting = standing.airunner("submit", "--json", "--queue", "off", "--expires", "1ms", "-f", str(file))
    ends = [json.loads(line) for line in waiting.stdout.splitlines()][4:]
    assert (waiting.returncode, {end["state"] for end in ends}) == (125, {"FAILED"})
    refused = standing.airunner("run", "-f", str(file))
    assert (refused.returncode, b"describes several jobs" in refused.stderr) == (64, True)


def test_an_interrupt_cancels_the_whole_set_if_that_is_asked(standing: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(FILE)
    words = ("submit", "--cancel-on-exit", "--queue", "interrupted", "-f", str(file))
    with start(standing.environ, *words, stderr=subprocess.PIPE, text=True) as submitting:
        assert submitting.stderr is not None
        assert submitting.stderr.readline() == "airunner: submitted 4 jobs\n"
        submitting.send_signal(signal.SIGINT)
        assert submitting.stderr.read() == "airunner: 4 of 4 jobs are cancelled or being cancelled\n"
        assert submitting.wait(20) == 130
    listed = standing.airunner("list", "--json", "--queue", "interrupted").stdout.splitlines()
    assert [json.loads(line)["state"] for line in listed] == ["CANCELLED"] * 4
