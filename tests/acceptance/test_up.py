"""`airunner up` and `down`: a cluster of this machine in two words, however often they are said."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from airunner import cluster
from airunner.client.web import origins
from airunner.protocol.errors import OperatorError
from airunner.supervisor import OFF
from airunner.transport.endpoints import DEFAULT_BROKER
from tests.acceptance.running import environment, run

TIMEOUT_S = 30
LINK = re.compile(r"http://[0-9.:]+/login/\S+")


class Home:
    """A home without keys."""

    def __init__(self, root: Path) -> None:
        self.environ = environment(root)
        self.lock = root / "cluster" / "lock"

    def say(self, *words: str, code: int = 0, **options: Any) -> str:
        """What `airunner WORDS` prints; it has to end with `code`."""
        done = run(self.environ, *words, **options)
        assert done.returncode == code, done.stderr
        return (done.stdout + done.stderr).decode()

    def state(self) -> dict[str, Any]:
        """What the supervisor has written of itself."""
        found: dict[str, Any] = json.loads(self.lock.read_text())
        return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.say("down")


def test_two_words_start_a_cluster_once_and_one_stops_it(home: Home) -> None:
    said = home.say("up", "--listen", "tcp://127.0.0.1:0")
    assert "is up: broker tcp://127.0.0.1:" in said
    broker, pages = home.state()["broker"], home.state()["web"]
    again = home.say("up")
    assert f"is up already: broker {broker}" in again
    for link in (LINK.search(said), LINK.search(again)):
        assert link is not None
        assert link[0].startswith(f"{pages}/login/")
        assert httpx.post(link[0]).cookies
    assert "hello" in home.say("submit", "-q", "--", "echo", "hello")  # which finds the broker
    assert "the cluster that `airunner up` has started" in home.say("config", "show")
    port = broker.rpartition(":")[2]
    other = Home(home.lock.parents[2] / "other")
    refused = other.say("up", "--listen", broker, code=69)
    assert f"port {port} is taken by process " in refused
    assert "airunner broker" in refused
    for flag in ("--events", "--http", "--web"):
        address = broker if flag == "--events" else broker.removeprefix("tcp://")
        refused = other.say("up", "--listen", "tcp://127.0.0.1:0", flag, address, code=69)
        assert f"stop that, or give another port with {flag} {address.rpartition(':')[0]}:PORT" in refused
        assert f"{flag} 'here' is not an" in other.say("up", flag, "here", code=64)
    assert "is down" in home.say("down")
    assert "no cluster" in home.say("down")
    with socket.create_server(("127.0.0.1", int(port))):  # nothing is left that has it
        pass


def test_pages_are_left_out_where_their_usual_port_is_taken_or_their_libraries_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = OperatorError("port 8090 is taken by process 12")
    monkeypatch.setattr(cluster, "_refuse_taken", Mock(side_effect=taken))
    assert cluster._pages(None, DEFAULT_BROKER) == (OFF, [f"there are no pages: {taken.message}"])
    with pytest.raises(OperatorError, match="is taken"):
        cluster._pages("127.0.0.1:8090", DEFAULT_BROKER)
    assert cluster._pages("off", DEFAULT_BROKER) == (OFF, [])
    monkeypatch.setattr(origins, "LIBRARIES", ("uvicorn", "there_is_no_such_library"))
    assert cluster._pages(None, DEFAULT_BROKER) == (OFF, [])
    with pytest.raises(OperatorError, match=re.escape("pip install 'airunner-jobs[web]'")):
        cluster._pages("127.0.0.1:8090", DEFAULT_BROKER)


def test_a_cluster_is_up_without_its_pages_where_these_do_not_start(home: Home) -> None:
    root = home.lock.parents[1]
    root.mkdir(0o700)
    (root / "web").touch()  # where the folder of the cookies' key would be
    said = home.say("up", "--listen", "tcp://127.0.0.1:0")
    assert "is up: broker tcp://" in said
    assert "there are no pages: airunner web did not start; see " in said
    assert not LINK.search(said)
    assert "hello" in home.say("submit", "-q", "--", "echo", "hello")


def test_what_dies_is_started_again_and_dies_with_its_supervisor(home: Home) -> None:
    home.say("up", "--listen", "tcp://127.0.0.1:0")
    pid = home.state()["pid"]
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
    again = home.say("submit", "-q", "--connect-timeout", "60", "--", "echo", "again", timeout_s=60)
    assert "again" in again  # by a broker that three processes which start at once make wait, on a busy machine
    left = [os.pidfd_open(int(child)) for child in children.read_text().split()]
    os.kill(pid, signal.SIGKILL)
    for child in left:
        assert select.select([child], [], [], TIMEOUT_S)[0]
        os.close(child)
