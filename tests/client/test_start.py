"""What the start of a client imports: its first job waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from airunner.certs.home import Home
from airunner.certs.init import init

NEEDLESS = {"apsw", "jwt", "nacl", "rich", "trio", "typer", "yaml", "zmq.asyncio", "encodings.idna"}
PROGRAM = """
import sys
import airunner
assert not {"anyio", "msgspec", "pytest", "zmq"} & sys.modules.keys(), "its names are imported when they are used"
import airunner.client.client
from airunner.client.reach import reach
access = reach("tcp://127.0.0.1:7070")
assert access.token().count(b".") == 2, "a token is signed"
access.network.dealer("tcp://127.0.0.1:7070").close()
access.close()
print(*sys.modules)
"""


def test_a_client_that_submits_imports_nothing_that_only_others_need(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home)
    environ = {**os.environ, "AIRUNNER_HOME": str(home.root)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True)
    assert "zmq" in done.stdout.split()
    assert not NEEDLESS & set(done.stdout.split())


COMMANDS = """
import sys
from airunner.__main__ import run
codes = run(["broker"]), run(["agent", "--broker", "tcp://127.0.0.1:1"])
assert codes == (64, 64), "a key is missing"
print("typer" in sys.modules, "pydantic" in sys.modules)
"""


def test_the_options_of_a_broker_and_an_agent_are_read_without_the_parsers_converters(tmp_path: Path) -> None:
    """They import pydantic, which would take a third of the time that an agent takes to start."""
    environ = {**os.environ, "AIRUNNER_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", COMMANDS], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
