"""`airunner artifact put` from inside a real job: files are kept while it runs, for its own processes and no others."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from airunner.client.client import Client
from airunner.protocol.jobsocket import (
    BODY_BYTES_MAX,
    ArtifactsPut,
    Frames,
    PutArtifacts,
    PutContent,
    PutEnd,
    PutFile,
    SocketRefused,
    ToAgent,
    ToJob,
    frame,
    message_of_agent,
)
from tests.acceptance.bounded import homes_of_an_ordinary_user
from tests.acceptance.running import Cluster, Gate, make_home, running_cluster, submitted

PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable
PUT = f"{sys.executable} -m airunner artifact put"
UID = 54_321  # of no account
ASK = """
import os, socket, sys
for message in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(os.environ["AIRUNNER_JOB_SOCKET"])
        try:
            asking.sendall(bytes.fromhex(message))
        except OSError:
            pass
        if message != sys.argv[1]:
            print(asking.recv(65536).hex(), flush=True)
        else:
            kept = asking.dup()  # half a frame, whose connection stays open
"""

CROWD = """
import os, socket, sys
crowd = []
for number in range(1000):
    each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    crowd.append(each)
    try:
        each.connect(os.environ["AIRUNNER_JOB_SOCKET"])
    except BlockingIOError:  # as many as may wait do
        pass
for each in crowd:
    each.close()
with socket.socket(socket.AF_UNIX) as last:
    last.connect(os.environ["AIRUNNER_JOB_SOCKET"])
    last.sendall(bytes.fromhex(sys.argv[1]))
    print(last.recv(65536).hex())
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def kept(cluster: Cluster, job_id: str) -> dict[str, str]:
    """The artifacts of a job: of a file its content, of a link its target, and the mode of all but links."""
    async with Client(cluster.broker.requests, home=cluster.home) as client:
        found = {}
        for file in await client.artifacts(job_id):
            content = b"".join([piece async for piece in client.read_artifact(job_id, file)])
            found[file.path] = file.target or f"{file.mode:o} {content.decode()}"
        return found


def answers(stdout: bytes) -> list[ToJob]:
    """What an agent answered, as `ASK` prints it."""
    return [message_of_agent(body) for line in stdout.split() for body in Frames().feed(bytes.fromhex(line.decode()))]


def asking(*requests: Sequence[ToAgent] | bytes) -> tuple[str, ...]:
    """Words of a job that makes these requests; the first is never answered."""
    sent = [each if isinstance(each, bytes) else b"".join(map(frame, each)) for each in requests]
    return ("--", PYTHON, "-c", ASK, *(each.hex() for each in sent))


def put(path: str, *content: bytes, target: str = "") -> list[ToAgent]:
    pieces = [PutContent(data=data) for data in content]
    return [PutArtifacts(), PutFile(path=path, target=target), *pieces, PutEnd()]


async def test_files_are_kept_while_the_job_runs_and_by_none_but_its_processes(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.agent(spawn=2)
    gate = Gate(tmp_path)
    outside = tmp_path / "outside"
    outside.write_text("of no checkout\n")
    script = f"""
    mkdir -p dist/empty; echo one > dist/run; chmod 750 dist/run; ln -s run dist/link; echo no > dist/.hidden
    {PUT} dist
    cd dist; echo two > run; (setsid sh -c '{PUT} -q run ../dist/run' & wait)
    echo three | {PUT} - --as in.txt; {PUT} {outside} --as logs/out
    {PUT} {outside}; echo exit=$?; {PUT} missing; echo exit=$?; ln -s {outside} away; {PUT} away; echo exit=$?
    echo door=$AIRUNNER_JOB_SOCKET; {gate.script}
    """
    job_id = submitted(cluster, "--pty", "--", "sh", "-c", script)
    gate.wait()
    assert await kept(cluster, job_id) == {
        "dist/empty/": "755 ",
        "in.txt": "644 three\n",
        "dist/link": "run",
        "dist/run": "750 two\n",
        "logs/out": "644 of no checkout\n",
    }, "the job still runs"
    lines = cluster.airunner("logs", job_id).stdout.decode().split()
    assert [line for line in lines if line.startswith("exit=")] == ["exit=64", "exit=66", "exit=1"]
    (door,) = (line.removeprefix("door=") for line in lines if line.startswith("door="))
    theirs = cluster.airunner("submit", "--", "sh", "-c", f"AIRUNNER_JOB_SOCKET={door} {PUT} {outside} --as stolen")
    assert (theirs.returncode, b"this process is none of the job's" in theirs.stderr) == (77, True), theirs
    gate.open(1)
    assert cluster.airunner("wait", job_id).returncode == 0
    over = cluster.airunner("artifact", "put", "--as", "x", str(outside))
    assert (over.returncode, over.stderr.count(b"\n")) == (64, 1), over


async def test_a_hostile_process_harms_only_its_own_requests(cluster: Cluster) -> None:
    cluster.agent()
    half = frame(PutArtifacts()) + frame(PutFile(path="half")) + frame(PutContent(data=b"never whole"))[:-1]
    bad: list[Sequence[ToAgent] | bytes] = [
        struct.pack(">I", BODY_BYTES_MAX + 1),
        struct.pack(">I", 3) + b"\xff\xff\xff",
        [PutEnd()],
        [PutArtifacts(), PutContent(data=b"of no file")],
        [PutArtifacts(), PutArtifacts()],
        put("a/../../b", b"x"),
        put("/etc/passwd", b"x"),
        put("link", target="../out"),
        put("short", b"a", b"b"),
    ]
    job_id = submitted(cluster, *asking(half, *bad, put("small", b"x")))
    assert cluster.airunner("wait", job_id).returncode == 0
    *refused, small = answers(cluster.airunner("logs", job_id).stdout)
    assert [each.code for each in refused if isinstance(each, SocketRefused)] == ["bad-request"] * len(bad)
    assert small == ArtifactsPut(files=1, size_bytes=1)
    assert await kept(cluster, job_id) == {"small": "644 x"}


async def test_a_thousand_connections_wait_and_one_after_them_is_answered(cluster: Cluster) -> None:
    cluster.agent()
    done = cluster.airunner("submit", "--", PYTHON, "-c", CROWD, b"".join(map(frame, put("last", b"x"))).hex())
    assert done.returncode == 0, done.stderr
    assert answers(done.stdout) == [ArtifactsPut(files=1, size_bytes=1)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run jobs as other users")
def test_an_agent_that_is_root_reads_no_file_for_a_job_of_another_user() -> None:
    with homes_of_an_ordinary_user() as folder:
        make_home(folder / "home")
        with running_cluster(folder / "home") as cluster:
            cluster.agent("--run-as", f"{UID}:{UID}")
            done = cluster.airunner("submit", *asking(b"", put("mine", b"x")))
            assert done.returncode == 0, done.stderr
            assert answers(done.stdout) == [ArtifactsPut(files=1, size_bytes=1)]
