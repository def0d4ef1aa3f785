"""A signal that comes while an agent ends changes nothing of its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airunner.certs.home import Home
from airunner.certs.init import init
from tests.acceptance.running import environment

# Its work is done at once, and signals come just before its launcher ends, and just after.
ENDING = """
import os, signal, sys
import anyio.lowlevel
from airunner.__main__ import run
from airunner.agent.agent import Agent
from airunner.agent.launcher.local import ChildLauncher

async def done(agent):
    await anyio.lowlevel.checkpoint()

async def ended(launcher, aclose=ChildLauncher.aclose):
    os.kill(os.getpid(), int(sys.argv[1]))
    await aclose(launcher)
    os.kill(os.getpid(), int(sys.argv[1]))

Agent.run, ChildLauncher.aclose = done, ended
code = run(sys.argv[2:])
os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(code)
"""


@pytest.mark.parametrize("number", ["2", "15"])
def test_an_agent_that_is_signalled_while_it_ends_says_that_it_stopped(tmp_path: Path, number: str) -> None:
    init(Home(tmp_path))
    words = [sys.executable, "-c", ENDING, number, "agent", "--broker", "tcp://127.0.0.1:1"]
    agent = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert (agent.returncode, agent.stderr.splitlines()[-1:]) == (0, ["airunner agent stopped"]), agent.stderr
