"""What `make up-ha` prepares for an agent: a home, a key and a token of its own, and no way to sign another."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from tests.acceptance.running import REPOSITORY, Process, environment, run, running_broker
from tests.agent.checkout.repositories import new_repository


def test_an_agent_of_the_fleet_cannot_sign_a_token_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import hacluster

    home = tmp_path / "home"
    environ = {**environment(home), "PATH": hacluster.own_environment(home)["PATH"]}
    hacluster.make_homes(home, environ, ["agent-a"])
    first = (home / "agent-a" / "token").read_bytes()
    hacluster.make_homes(home, environ, ["agent-a"])
    agents = hacluster.agent_home(home, "agent-a")
    token = agents / "token"
    assert token.read_bytes() != first, "each start has a new one"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert not list(agents.rglob("token.secret.pem"))
    assert not list(home.glob("*.keys"))
    assert (home / "certs" / "client.secret").read_bytes() != (agents / "certs" / "client.secret").read_bytes()
    with running_broker(home, "memory:") as broker:
        agent = Process(agents, ["agent", "--broker", broker.requests, "--token-file", str(token)])
        try:
            agent.line("airunner agent ready")
            submit = Process(home, ["submit", "--broker", broker.requests, "--", "true"])
            assert submit.wait(30) == 0
            repository = new_repository(tmp_path / "repository")
            local = run(
                environment(home, {"AIRUNNER_BROKER": broker.requests}), "submit", str(repository), "--", "true"
            )
            assert b"start the agent with --allow-local" in local.stderr
            [note] = [line for line in agent.lines if line.startswith("note: ")]
            assert "signs tokens" not in note
        finally:
            agent.stop()
    assert sys.modules.pop("hacluster") is hacluster
