"""What a person sees of a job: its prompts, its screen, its recording, its lines, and what it has used."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from ptyprocess import PtyProcess

from airunner import Client, JobSpec
from airunner.protocol.requests import ENQUEUE_MAX
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
    assert standing.airunner("export", "no-such-job").returncode == 66
    shown = standing.airunner("show", "--json", job, "no-such-job", f" {job.upper()}\n")
    assert (shown.returncode, [json.loads(line)["id"] for line in shown.stdout.splitlines()]) == (66, [job, job])
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
    listed = cluster.airunner("list", "-n", "2")
    assert [line.split()[0] for line in listed.stdout.decode().splitlines()] == ["ID", third, second]
    assert listed.stderr == f"airunner: the newest 2 of 3 jobs; go on with --after {second}, or list --all\n".encode()
    after = cluster.airunner("list", "-n", "1", "--after", third)
    assert after.stdout.decode().splitlines()[1].split()[0] == second
    assert after.stderr == f"airunner: 1 job; go on with --after {second}, or list --all\n".encode()
    assert cluster.airunner("list", "--after", "").stderr.startswith(b"airunner: the job's id is empty;")
    assert cluster.airunner("list", "--after", "nope").stderr.startswith(b"airunner: there is no job nope")
    every = list(map(json.loads, cluster.airunner("list", "--all", "--json").stdout.splitlines()))
    assert [(job["id"], job["why"]["cause"]) for job in every] == [(id_, "no-agent") for id_ in (third, second, first)]
    none = cluster.airunner("list", "--queue", "typo")
    assert (none.stdout, none.stderr) == (b"", b"airunner: no jobs in queue 'typo'; queues: default\n")
    with start(cluster.environ, "list", "--watch", "--json", stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        seen = [json.loads(watching.stdout.readline()) for _ in range(3)]
        assert [(job["id"], job["state"]) for job in seen] == [(id_, "SCHEDULED") for id_ in (first, second, third)]
        cluster.agent()
        ended: set[str] = set()
        while len(ended) < 3:
            job = json.loads(watching.stdout.readline())
            ended |= {job["id"]} if job["state"] == "COMPLETED" else set()
        cluster.broker.kill()
        cluster.broker.start()
        last = submitted(cluster, "--", "false")
        ends = (job["state"] for job in map(json.loads, watching.stdout) if job["id"] == last)
        assert any(state == "FAILED" for state in ends)
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


def test_a_job_is_found_by_a_beginning_of_its_id_its_name_or_its_place(standing: Cluster) -> None:
    first = submitted(standing, "--name", "lint", "--", "true")
    second = submitted(standing, "--name", "lint", "--", "false")

    def found(operand: str, code: int = 0) -> str:
        shown = standing.airunner("show", "--json", operand)
        assert shown.returncode == code, shown.stderr
        return json.loads(shown.stdout)["id"] if shown.stdout else shown.stderr.decode()

    assert [found(word) for word in ("lint", "@last", "@last~0", "@last~1")] == [second, second, second, first]
    for chars in (8, 13, 35, 36):
        assert found(first[:chars].upper()) == first
    assert "at least 4 characters" in found(first[:3], 66)
    assert "there is no job nope" in found("nope", 66)
    assert "there are not as many" in found("@last~9999", 66)
    ids = [standing.airunner("list", *words).stdout.split() for words in (["-q", "-n", "2"], ["-q", "--name", "lint"])]
    assert ids == [[second.encode(), first.encode()]] * 2


def test_a_beginning_of_several_ids_lists_them(standing: Cluster) -> None:
    async def submit() -> list[str]:
        async with Client(standing.broker.requests, home=standing.home) as client:
            batches = [
                await client.submit_many([JobSpec(command="true", queue="off")] * ENQUEUE_MAX) for _ in range(32)
            ]
            return [job.id for batch in batches for job in batch]

    ids = anyio.run(submit)
    counts = Counter(job_id[:4] for job_id in ids)
    beginning = next(text for text, count in counts.items() if count > 1)
    shown = standing.airunner("show", beginning)
    assert shown.returncode == 64
    lines = shown.stderr.decode().splitlines()
    assert lines[0] == f"airunner: {beginning} is the beginning of several ids:"
    alike = {job_id for job_id in ids if job_id.startswith(beginning)}
    assert {line.split()[1] for line in lines[1:-1]} <= alike
    assert lines[-1] == "| Give more characters of the id."
