"""A client that is interrupted says what becomes of its job, and exits as a shell would say."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.acceptance.running import Cluster, Gate, events, start, submitted

CONTINUES = "the job continues; `airunner monitor {}"
CANCELLED = "job {} is being cancelled"


@pytest.mark.parametrize(
    ("command", "options", "output", "interrupt", "code", "farewell"),
    [
        ("submit", (), "", signal.SIGINT, 130, CONTINUES),
        ("submit", (), "", signal.SIGTERM, 143, CONTINUES),
        ("retry", (), "", signal.SIGTERM, 143, CONTINUES),
        ("submit", ("-q", "--json"), "", signal.SIGHUP, 129, CONTINUES),
        ("submit", ("--cancel-on-exit",), "", signal.SIGTERM, 143, CANCELLED),
        ("retry", ("--cancel-on-exit",), "", signal.SIGINT, 130, CANCELLED),
        ("submit", (), "head -c 1000000 /dev/zero; ", signal.SIGTERM, 143, CONTINUES),
        ("submit", (), "while :; do echo; done; ", None, 141, CONTINUES),
        ("submit", ("--cancel-on-exit",), "while :; do echo; done; ", None, 141, CANCELLED),
    ],
)
def test_an_interrupted_client_says_what_becomes_of_its_job(
    standing: Cluster,
    gate: Gate,
    command: str,
    options: tuple[str, ...],
    output: str,
    interrupt: int | None,
    code: int,
    farewell: str,
) -> None:
    job = ("sh", "-c", f"echo $$ > {gate.begun}; {output}cat {gate.attempt(1)}")
    words = (*options, "--", *job)
    if command == "retry":
        before = submitted(standing, "--", *job)
        gate.wait()
        standing.airunner("cancel", before)
        assert list(events(standing, before))[-1]["state"] == "CANCELLED"
        words = (*options, before)
    with start(standing.environ, command, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        gate.wait()
        if "-q" not in options:
            client.stderr.readline()  # its job: an agent may begin that before the client has read the reply
        if interrupt is None:
            client.stdout.close()
        else:
            if output or "--json" in options:
                client.stdout.read(1)
            client.send_signal(interrupt)
        said = client.stderr.read().decode().splitlines()
        assert client.wait() == code
    assert farewell.split("{}", maxsplit=1)[0] in said[-1]
    job_id = said[-1].split(farewell.split("{}", maxsplit=1)[0])[1].split()[0].rstrip("`;")
    if farewell is CONTINUES:
        standing.airunner("cancel", job_id)
    assert list(events(standing, job_id))[-1]["state"] == "CANCELLED"


def test_a_second_interrupt_does_not_say_that_a_job_continues_which_is_being_cancelled(
    standing: Cluster, gate: Gate
) -> None:
    job = ("--cancel-signal", "USR1", "--", "sh", "-c", f"trap '' USR1 TERM; {gate.script}")
    words = ("submit", "--on-interrupt", "cancel", *job)
    with start(standing.environ, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stderr is not None
        gate.wait()
        job_id = client.stderr.readline().decode().split()[-1]  # once it follows the job
        for said in (b"cancelling; press Ctrl-C again to detach", b" is being cancelled"):
            client.send_signal(signal.SIGINT)
            assert any(said in line for line in client.stderr)
        assert client.wait() == 130
    # The gate stays shut: a job that ends by itself before its agent has heard of the cancel is COMPLETED.
    assert list(events(standing, job_id))[-1]["state"] == "CANCELLED"


def test_an_interrupted_monitor_of_an_ended_job_does_not_say_that_it_continues(standing: Cluster) -> None:
    submitted = standing.airunner("submit", "-q", "--no-monitor", "--", "head", "-c", "3000000", "/dev/zero")
    job_id = submitted.stdout.decode().strip()
    assert list(events(standing, job_id))[-1]["kind"] == "JOB_FINISHED"
    with start(standing.environ, "monitor", job_id, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.read(1) == b"\0"
        client.send_signal(signal.SIGTERM)
        _, said = client.communicate()
    assert client.returncode == 143
    assert b"continues" not in said
