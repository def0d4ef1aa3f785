"""What a person sees at a terminal who submits a job and follows it."""

from __future__ import annotations

from typing import Final

from tests.acceptance.running import Cluster
from tests.acceptance.screens import Screen, needs_tmux

pytestmark = needs_tmux
SIZES: Final = """\
trap 'stty size' WINCH
stty size
until [ "$(stty size)" = "20 70" ]; do sleep 0.05; done
stty size
"""


def test_a_jobs_terminal_has_the_size_of_the_one_that_submits_it(cluster: Cluster) -> None:
    cluster.agent()
    with Screen(cluster, 100, "submit", "--pty", "--", "sh", "-c", SIZES, height=30) as screen:
        screen.until("30 100")
        screen.resize(70, 20)
        screen.until("20 70")
        assert screen.ended() == 0
    with Screen(cluster, 70, "retry", "@last", height=20) as screen:  # it begins with the size of its first terminal
        assert screen.ended() == 0
    fixed = ("--pty", "--terminal", "99x33", "--", "sh", "-c", "stty size; sleep 0.2; stty size")
    with Screen(cluster, 100, "submit", *fixed) as screen:
        screen.until("33 99")
        screen.until("33 99")
        assert screen.ended() == 0
