"""`airunner run`: a job with no cluster is what it is with one, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, Gate, environment, start
from tests.acceptance.running import run as run_airunner
from tests.agent.checkout.repositories import new_repository
from tests.agent.launcher.launching import Watched, children_of

PUT = f"echo hi > f && {sys.executable} -m airunner artifact put f"
SCRIPT = 'printf "out\\0\\377"; echo err >&2; exit 7'


def environ(tmp_path: Path) -> dict[str, str]:
    """A folder for temporary files that is the test's, and a home that must not be touched."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return environment(tmp_path / "untouched", {"TMPDIR": str(tmp_path / "tmp"), "AIRUNNER_BROKER": "tcp://nowhere:1"})


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    done = run_airunner(environ(tmp_path), "run", *arguments)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "untouched").exists()
    return done


@contextmanager
def running(tmp_path: Path, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """In a process group of its own, as a shell starts it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(environ(tmp_path), "run", "--", "sh", "-c", script, process_group=0, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def test_output_and_exit_code_are_those_of_submit(cluster: Cluster, tmp_path: Path) -> None:
    cluster.agent()
    alone, submitted = run(tmp_path, "--", "sh", "-c", SCRIPT), cluster.airunner("submit", "--", "sh", "-c", SCRIPT)
    assert (alone.returncode, alone.stdout) == (submitted.returncode, submitted.stdout) == (7, b"out\0\xff")
    assert b"\nerr\n" in alone.stderr
    lines = [line.split()[:2] for line in submitted.stderr.splitlines()]
    assert [line[1] for line in lines[:3]] == [b"job", b"waiting", b"leased"], "which only a cluster has"
    assert [line.split()[:2] for line in alone.stderr.splitlines()] == lines[3:]
    put = run(tmp_path, "--artifact", "f", "--artifact-required", "--", "sh", "-c", PUT)
    assert (put.returncode, put.stderr.count(b"1 file")) == (0, 2), put.stderr
    again = run(tmp_path, "--retry", "1", "--retry-backoff", "0.001", "--", "false").stderr.decode().splitlines()
    said = [line.partition(", not before")[0] for line in again if " pid " not in line and " exit code " not in line]
    assert said == ["airunner: failed; retry 1: waiting", "airunner: attempt 2"]


def test_a_repository_a_terminal_and_a_secret(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    assert run(tmp_path, str(repository), "--", "cat", "file").stdout == b"one"
    recording = tmp_path / "job.cast"
    terminal = ("--pty", "--terminal", "99x11", "-q", "-o", str(recording))
    assert run(tmp_path, *terminal, "--", "stty", "size").stdout == b"11 99\r\n"
    header, output, end = map(json.loads, recording.read_text().splitlines())
    assert (header["version"], header["term"]["cols"], header["term"]["rows"]) == (3, 99, 11)
    assert (output[1:], end[1:]) == (["o", "11 99\r\n"], ["x", "0"])
    os.environ["RUN_SECRET"] = "swordfish"
    try:
        done = run(tmp_path, "--secret", "RUN_SECRET", "--", "sh", "-c", "echo is $RUN_SECRET")
    finally:
        del os.environ["RUN_SECRET"]
    assert done.stdout == b"is [REDACTED]\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_cancels_the_job_and_shows_its_end(tmp_path: Path, number: int) -> None:
    """So does a terminal that is closed."""
    gate = Gate(tmp_path)
    script = f"trap 'echo last words; exit 3' TERM; echo $$ > {gate.begun}; while :; do sleep 0.01; done"
    with running(tmp_path, script) as process:
        job = Watched([gate.wait()])
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=40)
        assert (process.returncode, out) == (128 + number, b"last words\n")
        assert b"airunner: CANCELLED" in err
        assert job.gone_within(1)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("more", [0, 100])
def test_ctrl_c_twice_ends_everything_at_once(tmp_path: Path, more: int) -> None:
    """Further signals do not disturb that."""
    gate = Gate(tmp_path)
    script = f"trap '' TERM; mkdir -p d; echo $$ > {gate.begun}; while :; do : $((i += 1)); echo > d/$i; done"
    with running(tmp_path, script) as process:
        job = Watched([gate.wait()])
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        while b"cancelling" not in process.stderr.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        with suppress(ProcessLookupError):  # it may have ended before the last of them
            for _ in range(more):
                os.kill(process.pid, signal.SIGINT)
                os.sched_yield()
        _, err = process.communicate(timeout=40)
        assert (process.returncode, b"Traceback" in err) == (130, False)
        assert job.gone_within(5)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_while_it_starts_it_leaves_nothing(tmp_path: Path, number: int) -> None:
    with running(tmp_path, "true") as process:
        while not list((tmp_path / "tmp").iterdir()):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=40)
        assert process.returncode == 128 + number
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    with running(tmp_path, "echo $$; exec yes") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        job = Watched([int(process.stdout.readline())])
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait() == 141
        assert job.gone_within(5)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_of_the_folder_it_runs_in_is_imported(tmp_path: Path) -> None:
    """Somebody's own `msgpack.py` is no part of a cluster."""
    code = "import sys; sys.path.pop(0); from airunner.__main__ import main; main()"
    (tmp_path / "msgpack.py").write_text("raise SystemExit('imported')")
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "-q", "--", "echo", "well"],
        cwd=tmp_path,
        env=environ(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"well\n", b"")


def test_what_a_single_process_does_not_need_is_not_imported(tmp_path: Path) -> None:
    """Sockets, tokens and the parser's converters would take a third of the time that it takes to start."""
    start = (
        "import sys; from airunner.__main__ import run; code = run(['run', '-q', '--', 'true']);"
        "print(code, *{'zmq', 'jwt', 'cryptography', 'pydantic', 'yaml'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", start], env=environ(tmp_path), capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"0\n", b"")


def test_what_a_killed_run_has_left_goes_with_the_next_and_what_lives_stays(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    with running(tmp_path, "echo; exec sleep 1000") as killed, running(tmp_path, "echo; exec sleep 1000") as living:
        assert killed.stdout is not None
        assert living.stdout is not None
        killed.stdout.readline()
        living.stdout.readline()
        [launcher] = children_of(killed.pid)  # which is the only other process of ours
        [keeper] = children_of(launcher)
        left = Watched([launcher, keeper, *children_of(keeper)])
        killed.kill()
        assert left.gone_within(2)
        (folder / "airunner-run-0123456789abcdef").mkdir()  # of a name that it could have, but nobody's
        assert len(list(folder.iterdir())) == 3
        assert run_airunner(environ(tmp_path), "run", "-q", "--", "true").returncode == 0
        (home,) = [path for path in folder.iterdir() if list(path.iterdir())]
        assert (home / "agent").is_dir()
        living.terminate()
        living.wait(20)
        assert not home.exists()


APART = ("unshare", "--map-root-user", "--net")


def apart(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """What becomes of `airunner WORDS` in a network namespace that has no interface."""
    environment = {name: value for name, value in environ(tmp_path).items() if name != "AIRUNNER_BROKER"}
    if subprocess.run((*APART, "true"), capture_output=True, check=False).returncode:
        pytest.skip("no network namespace without an interface can be made here")
    arguments = (*APART, sys.executable, "-m", "airunner", *words)
    return subprocess.run(arguments, env=environment, capture_output=True, timeout=15, check=False)


def test_without_a_network_a_job_runs(tmp_path: Path) -> None:
    done = apart(tmp_path, "run", "-q", "--", "sh", "-c", SCRIPT)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\0\377", b"err\n")


@pytest.mark.parametrize("words", [("broker", "--store", "memory:"), ("agent",), ("list",)], ids=lambda words: words[0])
def test_without_a_loopback_interface_that_is_said_at_once(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = apart(tmp_path, *words)
    assert done.returncode == 69
    assert b"loopback interface is down" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_pauses_stops_neither_the_job_nor_ctrl_c(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with running(tmp_path, f"head -c 10000000 /dev/zero; echo $$ > {gate.begun}; exec sleep 1000") as process:
        job = Watched([gate.wait()])
        process.send_signal(signal.SIGINT)
        assert job.gone_within(20)
        out, _ = process.communicate(timeout=40)
        assert (process.returncode, len(out)) == (130, 10_000_000)
