"""What a person sees of a job: its prompts, its screen, its recording, its lines, and what it has used."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ptyprocess import PtyProcess

from tests.acceptance.running import Cluster, start, submitted

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
    shown = standing.airunner("show", "--json", job, "no-such-job", f" {job.upper()}\n")
    assert (shown.returncode, [json.loads(line)["id"] for line in shown.stdout.splitlines()]) == (1, [job, job])
    assert shown.stderr.startswith(b"airunner: there is no job no-such-job;")


def test_merged_output_is_one_stream_wherever_it_is_shown(standing: Cluster) -> None:
    script = "for i in 1 2 3; do echo out; echo err >&2; done"
    job = submitted(standing, "--merge-output", "--", "sh", "-c", script)
    shown = standing.airunner("monitor", job)
    assert (shown.returncode, shown.stdout) == (0, b"out\nerr\n" * 3)
    assert b"err" not in shown.stderr
    lines = standing.airunner("monitor", "--json", "--event-filter", "output", job).stdout.splitlines()
    assert {json.loads(line)["stream"] for line in lines} == {"stdout"}
    assert standing.airunner("export", "--format", "raw", job).stdout == shown.stdout
    assert b"merge output" in standing.airunner("show", job).stdout


def test_a_job_in_a_queue_that_no_agent_serves_says_so(standing: Cluster) -> None:
    done = standing.airunner("submit", "-q", "--queue", "nowhere", "--expires", "3s", "--", "true")
    hint = "no agent serves queue nowhere; agents serve: default"
    assert f"airunner: waiting: {hint}\n" in done.stderr.decode()
    job_id = submitted(standing, "--queue", "nowhere", "--", "true")
    shown = standing.airunner("show", job_id).stdout.decode()
    assert f"waiting:      {hint}\n" in shown
    standing.airunner("pause", "nowhere")
    assert "waiting:      queue nowhere is paused" in standing.airunner("show", job_id).stdout.decode()
    standing.airunner("cancel", job_id)
    assert "waiting:" not in standing.airunner("show", job_id).stdout.decode()
    assert " default" in standing.airunner("agents").stdout.decode().splitlines()[1]


def test_a_list_says_how_many_there_are_and_goes_on_showing_what_changes(cluster: Cluster) -> None:
    first, second, third = (submitted(cluster, "--", "true") for _ in range(3))
    listed = cluster.airunner("list", "--page-size", "2")
    assert [line.split()[0] for line in listed.stdout.decode().splitlines()] == ["ID", third, second]
    assert listed.stderr == f"airunner: page 1 of 2, 3 jobs; there are more: --after {second}, or --all\n".encode()
    after = cluster.airunner("list", "--page-size", "1", "--after", third)
    assert after.stdout.decode().splitlines()[1].split()[0] == second
    assert after.stderr == f"airunner: there are more: --after {second}, or --all\n".encode()
    assert cluster.airunner("list", "--after", "").stderr == b"airunner: --after: expected text, and it is empty\n"
    assert cluster.airunner("list", "--after", "nope").stderr.startswith(b"airunner: there is no job nope")
    every = cluster.airunner("list", "--all", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in every] == [third, second, first]
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


WRITTEN = b"\x1b[31mred\x1b[0m \x1b]52;c;cm0gLXJmIC8K\x07\x1b[6n\x1b]0;title\x1b\\end\n"
FIT = b"\x1b[31mred\x1b[0m end\r\n"
JOB = ["submit", "--quiet", "--", sys.executable, "-c", f"import os; os.write(1, {WRITTEN!r})"]


def on_a_terminal(cluster: Cluster, *arguments: str) -> bytes:
    """All that a person's terminal gets of `airunner ARGUMENTS`."""
    child = PtyProcess.spawn([sys.executable, "-m", "airunner", *arguments], env=cluster.environ)
    seen = b""
    try:
        while True:
            seen += os.read(child.fd, 65_536)
    except OSError:  # which is how Linux ends a terminal
        return seen
    finally:
        child.close(force=True)


def test_a_terminal_gets_colours_and_a_pipe_gets_every_byte(standing: Cluster) -> None:
    assert on_a_terminal(standing, *JOB).replace(b"\x1b[0m\x1b[0m", b"\x1b[0m") in (FIT, FIT + b"\x1b[0m")
    raw = on_a_terminal(standing, JOB[0], "--raw", *JOB[1:])
    assert raw == WRITTEN.replace(b"\n", b"\r\n")
    assert standing.airunner(*JOB).stdout == WRITTEN


PROMPT = b"Password: "


@pytest.mark.parametrize("mode", [(), ("--pty",)], ids=["pipe", "pty"])
def test_a_prompt_is_seen_while_the_command_waits(standing: Cluster, tmp_path: Path, mode: tuple[str, ...]) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = f'printf "{PROMPT.decode()}"; cat {go}'
    words = ("submit", *mode, "--", "sh", "-c", script)
    with start(standing.environ, *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as monitor:
        assert monitor.stdout is not None
        seen = b""
        while seen != PROMPT:  # it comes only if it does not wait for the command, which waits for us
            seen += os.read(monitor.stdout.fileno(), len(PROMPT) - len(seen))
        go.write_text("swordfish")
        assert monitor.stdout.read() == b"swordfish"
        assert monitor.wait() == 0


BURN_MS = 200
BURN = f"import time\nwhile time.process_time() < {BURN_MS / 1_000}: pass"


def test_what_a_job_used_is_in_its_log_in_show_and_in_lists(standing: Cluster) -> None:
    script = f"printf abc; printf de >&2; {sys.executable} -c '{BURN}'; exit 3"
    done = standing.airunner("submit", "--json", "--", "sh", "-c", script)
    assert done.returncode == 3
    job_id, *events = map(json.loads, done.stdout.splitlines())
    [end] = [event for event in events if event["kind"] == "PROCESS_END"]
    shown: dict[str, Any] = json.loads(standing.airunner("show", "--json", job_id["job_id"]).stdout)
    used = shown["result"]["usage"]
    assert used == {**end["usage"], "events": len([event for event in events if "JOB_" not in event["kind"]])}
    assert (used["stdout_bytes"], used["stderr_bytes"]) == (3, 2)
    assert used.get("cpu_user_ms", 0) + used.get("cpu_system_ms", 0) >= BURN_MS
    assert used["memory_peak_bytes"] > 1 << 20
    assert shown["waited_ms"] <= shown["finished_ms"] - shown["submitted_ms"]
    listed = standing.airunner("list", "--columns", "id,events,stdout").stdout.decode().splitlines()
    assert listed[1].split() == [job_id["job_id"], str(used["events"]), "3", "bytes"]
