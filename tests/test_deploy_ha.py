"""The fleet's files are whole: compose, drop-in and setup, with commands, options, folders and keys that exist."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from airunner.__main__ import run
from airunner.certs.home import Home

ROOT = Path(__file__).parents[1]
HA = ROOT / "deploy" / "ha"
COMPOSE: dict[str, Any] = yaml.safe_load((HA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "airunner"]


def require_options(words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The first word is a command of ours, and it has all options among the others."""
    monkeypatch.setenv("COLUMNS", "200")
    assert run([words[0], "--help"]) == 0
    told = capfd.readouterr().out
    assert [word for word in words if word.startswith("--") and word not in told] == []


@pytest.mark.parametrize("name", [name for name in OURS if "command" in SERVICES[name]])
def test_a_service_of_the_fleet_runs_a_command_of_ours_in_a_home_of_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    service = SERVICES[name]
    require_options(service["command"].split(), monkeypatch, capfd)
    home = service["environment"]["AIRUNNER_HOME"]
    assert f"{name}:{home}" in service["volumes"], "the home outlives the container"
    others = [
        other["environment"].get("AIRUNNER_HOME") for key, other in SERVICES.items() if key in OURS and key != name
    ]
    assert home not in others


def test_the_fleet_names_only_services_and_volumes_that_it_has() -> None:
    volumes = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert volumes == COMPOSE["volumes"].keys()
    named = " ".join(
        str(service.get("environment", "")) + str(service.get("command", "")) for service in SERVICES.values()
    )
    hosts = {word.partition("//")[2].partition(":")[0] for word in named.replace("'", " ").split() if "tcp://" in word}
    assert hosts - {"0.0.0.0"} <= SERVICES.keys()
    setup = SERVICES["setup"]["environment"]
    for name in (*setup["BROKERS"].split(), *setup["AGENTS"].split()):
        assert f"{name}:{SERVICES[name]['environment']['AIRUNNER_HOME']}" in SERVICES["setup"]["volumes"]


def test_compose_accepts_the_file() -> None:
    if not (compose := shutil.which("docker-compose")):
        pytest.skip("install Debian's docker-compose")
    known = (HA / "compose.yaml").read_text().replace("name: airunner", "", 1)  # newer than Debian's
    checked = subprocess.run(
        [compose, "--project-directory", str(HA), "--file", "-", "config", "--quiet"],
        input=known,
        env={**os.environ, "POSTGRES_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_systemd_accepts_the_units_and_the_drop_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    drop_in = (HA / "broker.conf").read_text()
    start = next(line for line in drop_in.splitlines() if line.startswith("ExecStart=/"))
    require_options(shlex.split(start)[1:], monkeypatch, capfd)
    if not shutil.which("systemd-analyze"):
        pytest.skip("install Debian's systemd")
    (tmp_path / "airunner-broker.service.d").mkdir()
    units = [*(ROOT / "deploy").rglob("*.service"), HA / "broker.conf"]
    for unit in units:
        target = "airunner-broker.service.d/ha.conf" if unit.suffix == ".conf" else unit.name
        (tmp_path / target).write_text(unit.read_text().replace("/opt/airunner/bin/airunner", sys.executable))
    paths = [str(tmp_path / unit.name) for unit in units if unit.suffix == ".service"]
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    verified = subprocess.run(
        ["systemd-analyze", "verify", *paths], env=environ, capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_setup_makes_all_homes_and_renews_only_the_tokens(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    airunner = programs / "airunner"
    airunner.write_text(f'#!/bin/sh\nexec {sys.executable} -m airunner "$@"\n')
    airunner.chmod(0o755)
    environ = {
        **SERVICES["setup"]["environment"],
        "FLEET": str(tmp_path / "fleet"),
        "HOMES": str(tmp_path),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    made: list[dict[Path, bytes]] = []
    for _ in range(2):
        subprocess.run([HA / "setup.sh"], env=environ, check=True, capture_output=True)
        made.append({path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})
    assert {path.name for path in made[0] if made[0][path] != made[1][path]} == {"token"}
    assert made[0].keys() == made[1].keys()
    fleet = Home(tmp_path / "fleet")
    for name in environ["BROKERS"].split():
        assert Home(tmp_path / name).broker_secret.samefile(fleet.broker_secret)
    for name in environ["AGENTS"].split():
        agent = Home(tmp_path / name)
        assert agent.client_public.read_text().strip() in fleet.allowed_clients.read_text()
        assert agent.broker_public.read_bytes() == fleet.broker_public.read_bytes()
        assert not agent.token_secret.exists()
