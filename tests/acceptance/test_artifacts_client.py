"""Artifacts on the command line: listed, got and printed, of jobs whose agent is a few requests of the test's own."""

from __future__ import annotations

import json
import stat
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from random import Random

import anyio
import pytest

from airunner.client.client import Client
from airunner.protocol.blobs import PIECE_BYTES_MAX, Slice, blob_id
from airunner.protocol.events import Artifact, ProcessEnd
from tests.acceptance.running import Cluster
from tests.acceptance.screens import Screen, needs_tmux
from tests.client.working import Worker

LARGE = Random(1).randbytes(3 * PIECE_BYTES_MAX + 123)


async def leave(worker: Worker) -> None:
    """Leave a report, two wheels in folders, a large file of several pieces, a link and an empty folder."""
    await worker.publish(ProcessEnd(timestamp_ms=0, pid=1, exit_code=0))
    await worker.leave(report_xml=b"<ok/>\n", dist__a_whl=b"a" * 2_000, dist__old__b_whl=b"b" * 10)
    pieces = [LARGE[at : at + PIECE_BYTES_MAX] for at in range(0, len(LARGE), PIECE_BYTES_MAX)]
    await worker.put(*pieces)
    await worker.publish(
        Artifact(
            timestamp_ms=0,
            path="large.bin",
            mode=0o755,
            size_bytes=len(LARGE),
            slices=tuple(Slice(blob_id(piece), 0, len(piece)) for piece in pieces),
        ),
        Artifact(timestamp_ms=0, path="dist/latest", target="a.whl"),
        Artifact(timestamp_ms=0, path="logs/", mode=0o750),
    )


def a_job(cluster: Cluster, work: Callable[[Worker], Awaitable[None]], *, ends: bool = True) -> str:
    """Run a job by requests; return its id."""

    async def run() -> str:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            job = await client.submit(command="make", name="built", artifacts=["**"])
            worker = await Worker.lease(client)
            await work(worker)
            if ends:
                await worker.complete()
            return job.id

    return anyio.run(run)


def test_files_of_a_job_are_listed_got_and_printed(cluster: Cluster, tmp_path: Path) -> None:
    job = a_job(cluster, leave)
    listed = cluster.airunner("artifacts", "built")
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert [line.split() for line in listed.stdout.decode().splitlines()] == [
        ["PATH", "SIZE", "MODE", "TARGET"],
        ["dist/a.whl", "2000", "0644", "-"],
        ["dist/latest", "-", "-", "a.whl"],
        ["dist/old/b.whl", "10", "0644", "-"],
        ["large.bin", str(len(LARGE)), "0755", "-"],
        ["logs/", "-", "0750", "-"],
        ["report.xml", "6", "0644", "-"],
    ]
    forms = [json.loads(line) for line in cluster.airunner("artifacts", job[:8], "--json").stdout.splitlines()]
    assert forms[1] == {
        "path": "dist/latest",
        "kind": "link",
        "size_bytes": 0,
        "mode": "0644",
        "attempt": 1,
        "target": "a.whl",
    }
    got = cluster.airunner("artifacts", "@last", "get", cwd=tmp_path)
    assert (got.returncode, got.stdout) == (0, b"")
    assert got.stderr.decode() == "airunner: 6 files, 3.0 MiB, written to the current folder\n"
    assert (tmp_path / "large.bin").read_bytes() == LARGE
    assert stat.S_IMODE((tmp_path / "large.bin").stat().st_mode) == 0o755
    assert (tmp_path / "dist" / "latest").read_bytes() == b"a" * 2_000
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o750
    assert list(tmp_path.glob("**/.airunner-*")) == []
    printed = cluster.airunner("artifacts", job, "cat", "large.bin")
    assert (printed.returncode, printed.stdout == LARGE, printed.stderr) == (0, True, b"")
    shown = cluster.airunner("show", job).stdout.decode()
    assert f"files:        6 files, 3.0 MiB: airunner artifacts {job} get\n" in shown


def test_what_a_real_agent_has_stored_is_got_as_the_job_left_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.agent()
    script = (
        "mkdir -p out/deep out/empty; head -c 3000000 /dev/urandom | tee out/large | sha256sum; echo hi > out/deep/a; "
        "chmod 750 out/deep/a; ln -s ../large out/deep/link; touch out/nothing; "
        "for n in $(seq 200); do echo $n > out/$n; done"
    )
    submitted = cluster.airunner("submit", "--name", "left", "--artifact", "out", "--", "sh", "-c", script)
    assert submitted.returncode == 0, submitted.stderr
    got = cluster.airunner("artifacts", "left", "get", "-o", str(tmp_path / "got"))
    assert (got.returncode, got.stderr.split(b",")[0]) == (0, b"airunner: 205 files")
    out = tmp_path / "got" / "out"
    assert sha256((out / "large").read_bytes()).hexdigest() == submitted.stdout.split()[0].decode()
    assert (out / "deep" / "link").readlink() == Path("../large")
    assert ((out / "deep" / "a").read_bytes(), stat.S_IMODE((out / "deep" / "a").stat().st_mode)) == (b"hi\n", 0o750)
    assert [(out / str(number)).read_text() for number in range(1, 201)] == [f"{number}\n" for number in range(1, 201)]
    assert ((out / "nothing").read_bytes(), list((out / "empty").iterdir())) == (b"", [])


def test_patterns_choose_files_and_what_there_is_not_is_said_with_close_names(cluster: Cluster, tmp_path: Path) -> None:
    job = a_job(cluster, leave)
    out = tmp_path / "out"
    got = cluster.airunner("artifacts", job, "get", "dist/*.whl", "report.xml", "-o", str(out), "--json")
    assert [json.loads(line)["path"] for line in got.stdout.splitlines()] == ["dist/a.whl", "report.xml"]
    assert got.stderr.decode() == f"airunner: 2 files, 2.0 KiB, written to {out}\n"
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["a.whl", "report.xml"]
    for words, code, message in (
        (["get", "repor.xml"], 66, "the job has no file repor.xml; it has report.xml and more"),
        (["cat", "repor.xml"], 66, "the job has no file repor.xml; it has report.xml and more"),
        (["cat", "dist"], 64, "dist is a folder: name a file in it"),
        (["cat", "logs/"], 64, "logs/ is a folder: name a file in it"),
        (["cat", "dist/latest"], 64, "dist/latest is a link to a.whl: name that"),
        (["got"], 64, f"'got': expected get or cat, as in `airunner artifacts {job} get`"),
        (["get", "-o", str(out / "report.xml")], 74, f"{out}/report.xml is no folder"),
    ):
        done = cluster.airunner("artifacts", job, *words)
        assert (done.returncode, done.stdout, done.stderr.decode()) == (code, b"", f"airunner: {message}\n")
    (out / "report.xml").unlink()
    (out / "report.xml").mkdir()
    done = cluster.airunner("artifacts", job, "get", "-o", str(out))
    assert (done.returncode, b"report.xml is a folder: remove it first" in done.stderr) == (74, True)
    done = cluster.airunner("artifacts", "nothing")
    assert (done.returncode, b"there is no job nothing" in done.stderr) == (66, True)


def test_a_running_job_lists_what_is_there_by_now(cluster: Cluster, tmp_path: Path) -> None:
    async def nothing(_: Worker) -> None:
        """Leave nothing."""

    async def one(worker: Worker) -> None:
        await worker.leave(early_txt=b"early")

    a_job(cluster, nothing, ends=False)
    listed = cluster.airunner("artifacts", "@last")
    assert (listed.returncode, listed.stdout) == (0, b"")
    assert listed.stderr == b"airunner: the job is RUNNING, and has left no files yet\n"
    assert cluster.airunner("artifacts", "@last", "get", cwd=tmp_path).returncode == 66
    a_job(cluster, nothing)
    assert cluster.airunner("artifacts", "@last").stderr == b"airunner: the job has left no files\n"
    assert b"files:" not in cluster.airunner("show", "@last").stdout
    a_job(cluster, one, ends=False)
    assert cluster.airunner("artifacts", "@last", "cat", "early.txt").stdout == b"early"


def test_a_path_out_of_the_folder_is_refused_in_one_line_and_nothing_is_written(
    cluster: Cluster, tmp_path: Path
) -> None:
    async def hostile(worker: Worker) -> None:
        await worker.leave(a=b"first")
        await worker.publish(Artifact(timestamp_ms=0, path="../\x1b[31mescaped"))

    a_job(cluster, hostile)
    (tmp_path / "here").mkdir()
    done = cluster.airunner("artifacts", "@last", "get", cwd=tmp_path / "here")
    assert done.returncode == 65
    assert done.stderr == rb"airunner: the path ../\x1b[31mescaped leads out of the folder" + b"\n"
    assert [path.name for path in tmp_path.rglob("*") if "home" not in str(path)] == ["here"]
    assert b"\x1b" not in cluster.airunner("artifacts", "@last").stdout
    assert cluster.airunner("artifacts", "@last", "get", "a", cwd=tmp_path / "here").returncode == 0


@needs_tmux
@pytest.mark.parametrize("width", [30, 100])
def test_a_list_of_files_fits_its_terminal(cluster: Cluster, width: int) -> None:
    job = a_job(cluster, leave)
    with Screen(cluster, width, "artifacts", "built") as screen:
        assert screen.ended() == 0
        lines = screen.text().splitlines()
    shown = [line.split() for line in lines[:7]]
    if width == 30:
        assert shown[:2] == [["PATH", "SIZE"], ["dist/a.whl", "2.0", "KiB"]]
    else:
        assert shown[:2] == [["PATH", "SIZE", "MODE", "TARGET"], ["dist/a.whl", "2.0", "KiB", "0644"]]
        assert lines[7] == f"airunner: 6 files, 3.0 MiB; to get them: airunner artifacts {job} get"
