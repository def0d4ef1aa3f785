"""Screens as people see them, at 160, 80 and 40 columns and through a pipe."""

from __future__ import annotations

import pytest

from tests.acceptance.running import Cluster, stored, submitted
from tests.acceptance.screens import WRITE, Screen, golden, needs_tmux

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


def test_a_golden_file_is_compared_except_for_what_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WRITE, raising=False)
    golden("example", "0123abcd  RUNNING   12.5 s  a long tit…  3s\n")
    with pytest.raises(AssertionError, match="make screens"):
        golden("example", "0123abcd  FAILED   12.5 s  a long tit…  3s\n")
