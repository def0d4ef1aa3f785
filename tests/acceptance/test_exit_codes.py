"""Each exit code that is documented, by a command that ends with it; interrupts (130, 143, 129, 141) have their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.running import Cluster, environment, run, submitted

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
SUBMIT = ("submit", "--")
BUG = "from airunner import commandline; from airunner.__main__ import main; commandline.make_app = None; main()"


def full(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose stdout is a full disk."""
    with Path("/dev/full").open("wb") as out:
        command = [sys.executable, "-m", "airunner", *words]
        return subprocess.run(command, env=cluster.environ, stdout=out, stderr=subprocess.PIPE, check=False, timeout=60)


def bug(cluster: Cluster) -> subprocess.CompletedProcess[bytes]:
    """Run a command with a bug."""
    words = [sys.executable, "-c", BUG, "list"]
    return subprocess.run(words, env=cluster.environ, capture_output=True, check=False, timeout=60)


def test_every_exit_code_says_what_it_is_documented_to_say(standing: Cluster, tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    ended, waiting = submitted(standing, "--", "true"), submitted(standing, "--queue", "unserved", "--", "true")
    assert standing.airunner("monitor", ended).returncode == 0
    assert standing.airunner("drain", "drained").returncode == 0
    codes = {  # in this order: what waits is cancelled in between
        65: [("cancel", ended), ("retry", waiting), ("submit", "--queue", "drained", "--", "true")],
        0: [(*SUBMIT, "true"), ("show", ended), ("cancel", waiting)],
        1: [(*SUBMIT, "false")],
        2: [(*SUBMIT, "sh", "-c", "exit 2"), ("retry", submitted(standing, "--", "sh", "-c", "exit 2"))],
        64: [("lisst",), ("list", "--nosuch"), ("show",), ("list", "--state", "odd"), ("submit",), ("secret",)],
        66: [
            ("list", "--cluster", "nosuch"),
            *((name, "nosuch") for name in ("show", "monitor", "cancel", "retry", "export")),
        ],
        69: [("list", "--broker", "tcp://127.0.0.1:1", "--connect-timeout", "100ms")],
        74: [("export", ended, "-o", "/dev/full")],
        77: [("list", "--token", "not.a.token")],
        124: [("submit", "--timeout", "1", "--", "sleep", "60")],
        125: [("monitor", waiting), ("submit", "--secret", "NONE", "--", "true")],
        126: [(*SUBMIT, str(tmp_path / "text"))],
        127: [(*SUBMIT, "no-such-command")],
        137: [(*SUBMIT, "sh", "-c", "kill -9 $$")],
    }
    found = {code: [standing.airunner(*words) for words in commands] for code, commands in codes.items()}
    found[70] = [bug(standing)]
    found[74].append(full(standing, "list"))
    (tmp_path / "two.yaml").write_text("{command: 'true', queue: unserved, jobs: [{name: a}, {name: b}]}")
    for words in (("-d", "--json", "--queue", "unserved", "--", "true"), ("-d", "-f", str(tmp_path / "two.yaml"))):
        found[74].append(full(standing, "submit", *words))
        said = re.findall(r"[0-9a-f-]{36}", found[74][-1].stderr.decode())
        newest = standing.airunner("list", "-q", "-n", str(len(said))).stdout.decode().split()
        assert sorted(said) == sorted(newest)  # jobs whose ids stdout did not take
        assert len(said) == (2 if "-f" in words else 1)
    found[78] = [run(environment(tmp_path / "nowhere"), "certs", "doctor")]
    for code, ends in found.items():
        for end in ends:
            assert end.returncode == code, (end.args, end.stderr)
            assert code == 70 or b"Traceback" not in end.stderr
    table = PAGE.read_text().partition("| exit code | meaning |")[2].partition("\n\n")[0]
    documented = {int(code) for row in table.split("\n|") for code in re.findall(r"\d+", row.partition("|")[0])}
    assert documented - {128, 129, 130, 141, 143} == set(found) - {0, 1, 2, 137}
