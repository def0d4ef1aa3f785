"""What a person sees at a terminal who submits a job and follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from airunner.client.cli.bulk import CONFIRMED_MIN
from tests.acceptance.running import Cluster, Gate, stored, submitted
from tests.acceptance.screens import Screen, needs_tmux

pytestmark = needs_tmux
SIZES: Final = """\
trap 'stty size' WINCH
echo "begins with $(stty size)"
until [ "$(stty size)" = "20 70" ]; do sleep 0.05; done
stty size
"""


def test_a_jobs_terminal_has_the_size_of_the_one_that_submits_it(cluster: Cluster) -> None:
    cluster.agent()
    with Screen(cluster, 100, "submit", "--pty", "--", "sh", "-c", SIZES, height=30) as screen:
        screen.until("begins with 30 100")
        screen.resize(70, 20)
        screen.until("20 70")
        assert screen.ended() == 0
    with Screen(cluster, 70, "retry", "@last", height=20) as screen:  # it begins with the size of its first terminal
        assert screen.ended() == 0
    fixed = ("-it", "--terminal", "99x33", "--", "sh", "-c", "stty size; sleep 0.2; stty size")
    with Screen(cluster, 100, "submit", *fixed) as screen:
        screen.until("airunner: --stdin: the job gets no keys of this terminal")
        screen.until("33 99")
        screen.until("33 99")
        assert screen.ended() == 0


def test_ctrl_c_asks_what_becomes_of_the_job(cluster: Cluster, gate: Gate) -> None:
    cluster.agent()
    command = ("--on-interrupt", "ask", "--", "sh", "-c", gate.script)
    with Screen(cluster, 80, "submit", *command) as screen:
        gate.wait()
        screen.until("early")
        screen.keys("C-c")
        screen.until("Enter to go on?")
        gate.open(1)
        stored(cluster, "@last", "JOB_FINISHED")
        screen.keys("q", "Enter")
        screen.until("airunner: 'q' is no answer: d to detach, c to cancel, Enter to go on?")
        screen.keys("Enter")
        screen.until("late")
        assert screen.ended() == 0, "as if there had been no Ctrl-C"
        lines = screen.text().splitlines()
        assert [line for line in lines if "go on" in line and not line.endswith(("go on?", "go on? q"))] == []
        assert lines[-4:-2] == ["between", "late"], "what the job writes waits for the answer"
    with Screen(cluster, 80, "submit", *command) as screen:
        gate.wait()
        screen.until("early")
        screen.keys("C-c")
        screen.until("Enter to go on?")
        screen.keys("C-c")
        screen.until("the job continues; `airunner monitor ")
        assert screen.ended() == 130
    assert cluster.airunner("list", "-q", "--state", "running").stdout
    cluster.airunner("cancel", "@last")


def test_ctrl_c_cancels_a_set_and_its_ends_are_shown(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text("command: sleep\nargs: ['100']\nmatrix: {n: [a, b]}\nqueue: '{{matrix.n}}'\n")
    cluster.agent("--queue", "a")
    words = ("submit", "-f", str(tmp_path / "set.yaml"))
    with Screen(cluster, 100, *words, more={"AIRUNNER_ON_INTERRUPT": "cancel"}) as screen:
        screen.until("waiting: no agent serves queue b; agents serve: a")
        screen.keys("C-c")
        screen.until("cancelling; press Ctrl-C again to detach")
        screen.until("0 of 2 jobs completed, 2 did not")
        assert screen.ended() == 130


def test_ctrl_c_at_the_question_before_many_jobs_are_changed_changes_none(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text(f"command: x\nmatrix: {{n: {list(range(CONFIRMED_MIN))}}}\n")
    assert cluster.airunner("submit", "-d", "-f", str(tmp_path / "set.yaml")).returncode == 0
    with Screen(cluster, 80, "cancel", "--queue", "default") as screen:
        screen.until(f"cancel {CONFIRMED_MIN} jobs? [y/N] ")
        screen.keys("C-c")
        assert screen.ended() == 130
        assert screen.text().splitlines()[1] == "airunner: no job was changed"
    assert not cluster.airunner("list", "-q", "--state", "cancelled").stdout


def test_logs_of_a_waiting_job_say_why_it_waits(cluster: Cluster) -> None:
    job = submitted(cluster, "--queue", "gpu", "--", "echo", "out")
    with Screen(cluster, 100, "logs", "-f", job) as screen:
        screen.until("airunner: waiting: no agent serves queue gpu; no agent is there")
        screen.until(": no agent serves queue gpu")
        cluster.agent("--queue", "gpu")
        assert screen.ended() == 0
        assert screen.text().split("\n")[1:] == ["out", "exited with 0", ""]
