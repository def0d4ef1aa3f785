"""How a job is looked at, on real processes: its recording, some kinds of its events, its lines with timestamps."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.gate import submitted
from tests.acceptance.running import Cluster, start

pytestmark = pytest.mark.timeout(60)  # starting a cluster takes seconds

SCRIPT = r"""
import os, fcntl, struct, termios, time
os.write(1, b"caf\xc3"); time.sleep(0.2); os.write(1, b"\xa9\n")
fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
time.sleep(0.3); os.write(1, b"done\n"); raise SystemExit(7)
"""


def test_a_job_is_shown_as_it_is_asked_for(standing: Cluster, tmp_path: Path) -> None:
    job = submitted(standing, "--pty", "--", sys.executable, "-c", SCRIPT)

    timed = standing.airunner("monitor", "--timestamps=relative", "--quiet", "--from-sequence", "0", job)
    assert timed.returncode == 7
    assert re.fullmatch(r"\[\+\d+\.\ds\] caf\u00e9\r\n\[\+\d+\.\ds\] done\r\n", timed.stdout.decode())
    clocked = standing.airunner("monitor", "--timestamps", "--event-filter", "output,process-start", job)
    assert len(re.findall(rb"(?m)^\[\d\d:\d\d:\d\d\] ", clocked.stdout)) == 2
    assert re.fullmatch(rb"airunner: \[\d\d:\d\d:\d\d\] started, pid \d+\n", clocked.stderr)
    some = standing.airunner("monitor", "--json", "--event-filter", "PROCESS_END,TERMINAL_RESIZE", job)
    kinds = [json.loads(line)["kind"] for line in some.stdout.splitlines()]
    assert (some.returncode, kinds) == (7, ["TERMINAL_RESIZE", "TERMINAL_RESIZE", "PROCESS_END"])

    header, *lines = map(json.loads, standing.airunner("export", job).stdout.splitlines())
    assert (header["version"], header["term"]["cols"], header["term"]["rows"]) == (3, 80, 24)
    assert "".join(data for _, code, data in lines if code == "o") == "caf\u00e9\r\ndone\r\n"
    assert [data for _, code, data in lines if code in "rx"] == ["120x40", "7"]
    assert sum(seconds for seconds, _, _ in lines) >= 0.45, "the sleeps are in it"
    recording = tmp_path / "raw"
    assert standing.airunner("export", "--format", "RAW", "-o", str(recording), job).returncode == 0
    assert recording.read_bytes() == "caf\u00e9\r\ndone\r\n".encode()
    every = standing.airunner("monitor", "--json", job)
    assert standing.airunner("export", "--format", "jsonl", job).stdout == every.stdout
    assert standing.airunner("export", "no-such-job").returncode == 1


def test_a_list_says_how_many_there_are_and_goes_on_showing_what_changes(cluster: Cluster) -> None:
    first, second, third = (submitted(cluster, "--owner", "ada", "--", "true") for _ in range(3))
    listed = cluster.airunner("list", "--page-size", "2")
    assert [line.split()[0] for line in listed.stdout.decode().splitlines()] == ["ID", third, second]
    assert listed.stderr == b"airunner: page 1 of 2, 3 jobs; there are more: --page 2\n"
    assert b" ada " in listed.stdout
    with start(cluster.environ, "list", "--watch", "--json", stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        seen = [json.loads(watching.stdout.readline()) for _ in range(3)]
        assert [(job["id"], job["state"]) for job in seen] == [(id_, "SCHEDULED") for id_ in (first, second, third)]
        cluster.agent()
        ended: set[str] = set()
        while len(ended) < 3:
            job = json.loads(watching.stdout.readline())
            ended |= {job["id"]} if job["state"] == "COMPLETED" else set()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
