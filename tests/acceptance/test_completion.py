"""Completion in real shells: what Tab makes of a line, typed in a terminal of bash, zsh and fish."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from ptyprocess import PtyProcess

from airunner import completing
from airunner.__main__ import run
from tests.acceptance.running import Cluster, submitted

STARTS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SETUPS = {
    "bash": "PS1='> '; source <(airunner completion bash)",
    "zsh": "PS1='> '; autoload -Uz compinit; compinit -u -D; source <(airunner completion zsh)",
    "fish": "airunner completion fish | source",
}
LINES = {  # a line before Tab, and what it is made into
    "airunner subm": "submit",
    "airunner show night": "night-work",
    "airunner cancel night": "night",  # it has ended
    "airunner artifacts night-work get re": "report.txt",
    "airunner list --st": "--stat",  # --state and --status
    "airunner list --state sch": "scheduled",
    "airunner pause unse": "unserved",
    "airunner list --queue=unse": "--queue=unserved",
    "airunner certs queu": "queue-key",
    "airunner submit -f jo": "job.yaml",
    "airunner config use pr": "prod",
    "airunner completion z": "zsh",
}
NAME = "two $(touch pwned)"  # of a job, which nobody wants to be run
STARTED = {"bash": ["two", r"two\ \$", "'two ", '"two '], "zsh": ["two"], "fish": ["two"]}  # beginnings of it


@pytest.fixture(scope="module")
def words(standing: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    """The environment of a shell, and its folder; a job, a queue, a cluster and a file have names to complete."""
    folder = tmp_path_factory.mktemp("completion")
    done = submitted(standing, "--name", "night-work", "--artifact", "report.txt", "--", "touch", "report.txt")
    assert standing.airunner("wait", done).returncode == 0
    submitted(standing, "--queue", "unserved", "--", "true")
    submitted(standing, "--queue", "unserved", "--name", NAME, "--", "true")
    (folder / "job.yaml").touch()
    (folder / "config.yaml").write_text("clusters: {prod: }\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**standing.environ, "AIRUNNER_CONFIG_FILE": str(folder / "config.yaml"), "PATH": path}, folder


@pytest.mark.unmeasured
@pytest.mark.parametrize("shell", STARTS)
def test_tab_completes_a_line_in_a_real_shell(shell: str, words: tuple[dict[str, str], Path]) -> None:
    if shutil.which(shell) is None and "CI" not in os.environ:
        pytest.skip(f"{shell} is not installed")
    environ, folder = words
    terminal = PtyProcess.spawn(STARTS[shell], cwd=str(folder), env={**environ, "TERM": "dumb"}, dimensions=(50, 200))
    try:
        terminal.write(f"{SETUPS[shell]}\n".encode())
        lines = {**LINES, **{f"airunner show {beginning}": NAME for beginning in STARTED[shell]}}
        for line, made in lines.items():
            # Ctrl-A and Ctrl-E make a command of the completed line, which prints it; zsh then removes its last space.
            terminal.write(f"{line}\t\x01echo '<'\x05'>'\n".encode())
            before = "airunner show" if made == NAME else line.rpartition(" ")[0]
            expected = f"<{before} {made}"
            seen = ""
            while f"{expected}>" not in seen and f"{expected} >" not in seen:
                seen += terminal.read(4096).decode(errors="replace").replace("\r", "")
    finally:
        terminal.terminate(force=True)
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("airunner --cl", ["--cluster"]),
        ("airunner --cluster pro", ["prod"]),
        ("airunner --cluster prod retr", ["retry"]),
        ("airunner help exit", ["exit-codes"]),
        ("airunner submit --process-type p", ["pipe", "pty"]),
        ("airunner submit --pt", ["--pty"]),
        ("airunner submit -q --env A=b --qui", ["--quiet"]),
        ("airunner submit --quiet --qui", []),
        ("airunner submit -qw ", [":files"]),
        ("airunner agent --fsck s", ["strict"]),
        ("airunner agent --hooks ", [":folders"]),
        ("airunner list --columns own", ["owner"]),
        ("airunner config set que", ["queue"]),
        ("airunner config set clusters.p", ["clusters.prod."]),
        ("airunner certs revoke ma", []),
        ("airunner artifacts 3f2a g", ["get"]),
        ("airunner certs import ", [":files"]),
        ("airunner monitor --event-filter job-f", ["job-finished"]),
        ('airunner list --state "fai', ["failed"]),
        ("airunner submit -- ma", [":files"]),
        ("airunner show --broker tcp://127.0.0.1:1 ", []),
        ("airunner nonsense ", []),
        ("airunner certs nonsense ", []),
        ("airunner pause --nonsense", []),
        ("airunner token x", []),
    ],
)
def test_candidates_are_what_fits_and_no_failure_is_shown(
    line: str,
    found: list[str],
    words: tuple[dict[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("AIRUNNER_HOME", "AIRUNNER_CONFIG_FILE"):
        monkeypatch.setenv(name, words[0][name])
    for name in ("AIRUNNER_CLUSTER", "AIRUNNER_BROKER"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(completing, "WAIT_S", 0.1)
    unfinished = line.rpartition(" ")[2].lstrip('"')
    assert run(["_complete", "bash", unfinished, line]) == 0
    said = capfd.readouterr()
    assert [each.partition("\t")[0] for each in said.out.splitlines()] == found
    assert said.err == ""


def test_an_unknown_shell_is_answered_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    for words, named in ((["completion"], "'tcsh'"), (["completion", "csh"], "'csh'")):
        assert run(words) == 64
        err = capfd.readouterr().err
        assert "SHELL: expected bash" in err
        assert named in err
    monkeypatch.setenv("SHELL", "/usr/bin/bash")
    assert run(["completion"]) == 0
    assert "complete -o nosort -F _airunner airunner" in capfd.readouterr().out
