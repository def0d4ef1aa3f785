"""What is wrong is said in one line that tells what to do, and the exit code is not 0."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import zmq

from tests.acceptance import running
from tests.acceptance.running import Cluster, RunningBroker, environment, make_home, running_broker

pytestmark = pytest.mark.timeout(60)

NOBODY = "tcp://127.0.0.1:9"  # the discard port: nothing listens there


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What was said on stderr, which is never a traceback."""
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr
    return stderr


def run(home: Path, broker: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return running.run(environment(home, {"AIRUNNER_BROKER": broker}), *arguments)


def test_an_unreachable_broker_is_waited_for_a_while_and_named(home: Path) -> None:
    done = run(home, NOBODY, "submit", "--", "true")
    assert done.returncode == 69
    waiting, failed = said(done).splitlines()
    assert NOBODY in waiting
    assert NOBODY in failed


def test_a_key_that_is_not_listed_is_not_let_in(broker: RunningBroker, home: Path) -> None:
    (home / "certs" / "allowed-clients").write_text("# nobody\n")
    done = run(home, broker.requests, "list")
    assert done.returncode == 77
    assert "allow-list" in said(done)


def test_an_agent_whose_key_is_not_listed_ends_and_says_so(broker: RunningBroker, home: Path) -> None:
    (home / "certs" / "allowed-clients").write_text("# nobody\n")
    done = run(home, broker.requests, "agent")
    assert done.returncode == 77
    assert "allow-list" in said(done)


def test_another_brokers_key_is_told_from_a_broker_that_is_away(broker: RunningBroker, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_home(other)
    done = run(other, broker.requests, "list")
    assert done.returncode == 77
    assert "broker.public" in said(done)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "no-such-job"], 1, "no job no-such-job"),
        (["monitor", "no-such-job"], 1, "no job no-such-job"),
        (["submit"], 2, "no command"),
        (["submit", "--config", "/no/such/file", "--", "true"], 2, "/no/such/file"),
        (["submit", "--queue", "two words", "--", "true"], 2, "queue"),
        (["submit", "--timeout-seconds", "soon", "--", "true"], 2, "timeout-seconds"),
        (["list", "--state", "asleep"], 2, "asleep"),
    ],
)
def test_what_cannot_be_is_said(standing: Cluster, arguments: list[str], code: int, words: str) -> None:
    done = standing.airunner(*arguments)
    assert done.returncode == code
    assert words in said(done)


def test_an_ill_typed_job_file_is_told_by_its_key(standing: Cluster, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("command: make\ntimeout: soon\n")
    done = standing.airunner("submit", "--config", str(job))
    assert done.returncode == 2
    assert "timeout" in said(done)
    assert "whole seconds" in said(done)


def test_a_broker_that_is_given_garbage_serves_the_next_request(cluster: Cluster) -> None:
    broker = cluster.broker
    certs = cluster.home / "certs"
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.curve_serverkey = (certs / "broker.public").read_bytes().strip()
        dealer.curve_publickey = (certs / "client.public").read_bytes().strip()
        dealer.curve_secretkey = (certs / "client.secret").read_bytes().strip()
        dealer.connect(broker.requests)
        for frames in ([b""], [b"AR1"], [b"AR1", b"short"], [b"x"] * 9, [b"AR1", bytes(16), b"", b"\xc1"]):
            dealer.send_multipart(frames)
        refused = dealer.recv_multipart()  # only the last can be answered: it has a request id
        assert refused[:2] == [b"AR1", bytes(16)]
        assert b"bad-request" in refused[2]
    assert cluster.airunner("list").returncode == 0
    with urllib.request.urlopen(f"http://{broker.http}/metrics") as answer:
        assert b"airunner_garbage_total 4\n" in answer.read()


def test_a_second_broker_on_one_store_says_why_it_cannot_be(cluster: Cluster) -> None:
    done = run(cluster.home, NOBODY, "broker", "--listen", "tcp://127.0.0.1:0", "--events", "tcp://127.0.0.1:0")
    assert done.returncode == 69
    assert "a broker uses the store" in said(done)


def test_a_reader_that_goes_away_ends_submit_quietly(standing: Cluster) -> None:
    words = ("submit", "--quiet", "--", "seq", "1", "200000")
    with running.start(standing.environ, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as submit:
        assert submit.stdout is not None
        assert submit.stderr is not None
        assert submit.stdout.read(2) == b"1\n"
        submit.stdout.close()
        assert submit.stderr.read() == b""
    assert submit.returncode == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_standard_stream_is_no_bug_of_ours(standing: Cluster, closed: str) -> None:
    words = ["sh", "-c", f'exec "$0" -m airunner list {closed}', sys.executable]
    done = subprocess.run(
        words, env=standing.environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_disk_that_is_nearly_full_takes_no_new_jobs_and_says_so(home: Path) -> None:
    with running_broker(home, None, "--reserve-mib", str(2**40)) as broker:
        done = run(home, broker.requests, "submit", "--", "true")
        assert done.returncode == 69
        (line,) = said(done).splitlines()
        assert "disk" in line
        assert run(home, broker.requests, "list").returncode == 0
