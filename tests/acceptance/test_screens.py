"""Screens as people see them, at 160, 80 and 40 columns and through a pipe."""

from __future__ import annotations

import pytest

from tests.acceptance.running import Cluster, Gate, stored, submitted
from tests.acceptance.screens import PROMPT, WRITE, Screen, golden, needs_tmux

WIDTHS = (160, 80, 40)


@needs_tmux
def test_lists_fit_their_terminal(cluster: Cluster) -> None:
    agent = cluster.agent("--name", "build-7")
    ended = submitted(cluster, "--name", "lint", "--owner", "ann", "--", "sh", "-c", "exit 3")
    stored(cluster, ended, "JOB_FINISHED")
    agent.stop()
    submitted(cluster, "--queue", "gpu", "--", "python3", "-c", "print('a command that is longer than any column')")
    cluster.airunner("pause", "default")
    submitted(cluster, "--owner", "bo", "--", "make", "all")
    for width in WIDTHS:
        with Screen(cluster, width, "list") as screen:
            assert screen.ended() == 0
            golden(f"list-{width}", screen.text())
    golden("list-pipe", cluster.airunner("list").stdout.decode())


@needs_tmux
def test_submit_shows_in_one_line_what_the_job_does(cluster: Cluster, gate: Gate) -> None:
    cluster.agent("--name", "build-7")
    for width in WIDTHS:
        with Screen(cluster, width, "submit", "--", "sh", "-c", gate.script) as screen:
            gate.wait()
            screen.until("last output")
            golden(f"submit-{width}", screen.text())
            gate.open(1)
            assert screen.ended() == 0
        with Screen(cluster, width, "submit", "--queue", "gpu", "--", "true") as screen:
            screen.until(" s: no agent serves")
            golden(f"submit-waiting-{width}", screen.text())
            screen.keys("C-c")
            assert screen.ended() == 130
    piped = cluster.airunner("submit", "--", "sh", "-c", "echo out; exit 3")
    golden("submit-pipe", (piped.stderr + piped.stdout).decode())


@needs_tmux
def test_explain_and_wait_say_what_helps_at_each_width(cluster: Cluster) -> None:
    cluster.agent("--name", "build-7", "--queue", "gpu", "--tag", "os=linux", "--queue", "default")
    failed = submitted(cluster, "--", "sh", "-c", "echo 'no space left'; exit 137")
    stored(cluster, failed, "JOB_FINISHED")
    lacking = submitted(cluster, "--queue", "gpu", "--require", "os=linux", "--require", "arch=arm", "--", "true")
    for name, job in (("waiting", lacking), ("failed", failed)):
        for width in WIDTHS:
            with Screen(cluster, width, "explain", job) as screen:
                assert screen.ended() == 0
                golden(f"explain-{name}-{width}", screen.text())
        golden(f"explain-{name}-pipe", cluster.airunner("explain", job).stdout.decode())
    for width in WIDTHS:
        with Screen(cluster, width, "wait", failed, lacking) as screen:
            screen.until("waiting: no agent of queue gpu has the tags")
            screen.until("1 of 2")
            golden(f"wait-{width}", screen.text())
            screen.keys("C-c")
            assert screen.ended() == 130
    piped = cluster.airunner("wait", failed, lacking, "--timeout", "2s")
    golden("wait-pipe", (piped.stdout + piped.stderr).decode())


def test_a_golden_file_is_compared_except_for_what_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WRITE, raising=False)
    golden("example", "0123abcd  RUNNING   12.5 s  a long tit…  3s\n")
    with pytest.raises(AssertionError, match="make screens"):
        golden("example", "0123abcd  FAILED   12.5 s  a long tit…  3s\n")


@needs_tmux
def test_top_fits_its_terminal_and_follows_what_happens(cluster: Cluster, gate: Gate) -> None:
    cluster.agent("--name", "build-7", "--queue", "default", "--queue", "gpu", spawn=2)
    cluster.airunner("pause", "nightly")
    submitted(cluster, "--queue", "nightly", "--", "make", "all")
    with Screen(cluster, 80, "top") as screen:
        screen.until("RUNNING FOR")
        job = submitted(cluster, "--name", "lint the whole tree", "--owner", "ann", "--", "sh", "-c", gate.script)
        gate.wait()
        screen.until("lint the whole tree")
        golden("top-80", screen.text())
        for width, only_there in ((160, "started, 0.0 ended"), (40, "slots busy;\x1b[K")):
            screen.resize(width, 24)
            screen.until(only_there)
            screen.until("\x1b[J")
            golden(f"top-{width}", screen.text())
        golden("top-pipe", cluster.airunner("top").stdout.decode())
        gate.open(1)
        stored(cluster, job, "JOB_FINISHED")
        screen.until("0 running")
        screen.keys("q")
        assert screen.ended() == 0
        assert screen.text() == f"{PROMPT}0\n", "nothing of it is left on the shell's screen"
    with Screen(cluster, 80, "top") as screen:
        screen.until("RUNNING FOR")
        screen.keys("C-c")
        assert (screen.ended(), screen.text()) == (130, f"{PROMPT}130\n")


@needs_tmux
def test_a_watched_list_changes_in_place(cluster: Cluster) -> None:
    with Screen(cluster, 80, "list", "--watch") as screen:
        screen.until("NAME OR COMMAND")
        submitted(cluster, "--name", "lint", "--", "true")
        screen.until("SCHEDULED")
        cluster.agent()
        screen.until("COMPLETED")
        screen.until("ms")  # how long it took is behind its state
        golden("list-watch-80", screen.text())
        screen.keys("C-c")
        assert screen.ended() == 130
