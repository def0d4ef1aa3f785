"""Several clusters in one config.yaml: each command, and the Python client, uses the one that is chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airunner import Client
from airunner.certs.curve import new_secret, public_of
from airunner.client.reach import reach
from tests.acceptance.running import Cluster, airunner, environment, run


async def test_a_named_cluster_has_its_broker_its_keys_and_its_settings(
    standing: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "config.yaml"
    environ = environment(tmp_path)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(airunner(standing.home, "token", "--subject", "ada"))
    key = (standing.home / "certs" / "broker.public").read_text().strip()
    other = public_of(new_secret()).decode()
    own = f"home: {standing.home}\n    broker: {standing.broker.requests}\n    queue: ci\n    token-file: ~/token\n"
    config.write_text(
        f"clusters:\n  here:\n    {own}    server-key: '{key}'\n  forged:\n    {own}    server-key: '{other}'\n"
    )
    assert run(environ, "list").returncode == 64, "without a name it is the home's own, which has no keys"
    assert run(environ, "config", "use", "here").returncode == 0
    job = run(environ, "submit", "-d", "--", "true")
    assert job.returncode == 0, job.stderr
    shown = json.loads(run(environ, "show", "--json", job.stdout.decode().strip()).stdout)
    assert shown["spec"]["queue"] == "ci"
    (tmp_path / "job.yaml").write_text("command: 'true'\nqueue: gpu\n")
    for words, queue in (((), "gpu"), (("--queue", "flag"), "flag")):
        job = run(environ | {"AIRUNNER_QUEUE": "set"}, "submit", "-d", "-f", str(tmp_path / "job.yaml"), *words)
        shown = json.loads(run(environ, "show", "--json", job.stdout.decode().strip()).stdout)
        assert shown["spec"]["queue"] == queue, "a flag overrides the job file, and that the environment"
    async with Client(reach=reach(environ=environ)) as client:
        assert await client.get(shown["id"])
    forged = run(environ, "list", "--cluster", "forged", "--connect-timeout", "60")
    assert (forged.returncode, b"another key than" in forged.stderr) == (77, True), forged.stderr
