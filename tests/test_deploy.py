"""The units are whole: every directive in its section, the hardening there, and commands that exist."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[1] / "deploy").glob("*.service"))
SECTIONS = {"Unit", "Service", "Install"}
NEEDED = {"NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "UMask=0077", "Restart=always"}


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = []
        else:
            name, equals, _ = line.partition("=")
            assert name.isalpha(), line
            assert equals, line
            found[section].append(line)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_whole_and_hardened(unit: Path) -> None:
    found = directives(unit)
    assert set(found) == SECTIONS
    assert set(found["Service"]) >= NEEDED


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_its_command_is_one_of_ours_with_options_that_exist(unit: Path) -> None:
    (start,) = [line for line in directives(unit)["Service"] if line.startswith("ExecStart=")]
    program, command, *options = shlex.split(start.removeprefix("ExecStart="))
    assert Path(program).name == "airunner"
    told = subprocess.run(
        [sys.executable, "-m", "airunner", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[1])},
    ).stdout
    assert all(option in told for option in options if option.startswith("--"))
