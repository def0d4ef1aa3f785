"""The units are whole: every directive in its section, the hardening there, and commands that exist."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from airunner.__main__ import run
from airunner.agent.command import SLOTS_SPAWNED_MAX
from airunner.agent.plan import AGENT_DESCRIPTORS, SLOT_DESCRIPTORS
from airunner.broker.command import DESCRIPTORS

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "deploy").rglob("*.service"))
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
def test_a_unit_is_whole_and_hardened_and_its_bound_of_descriptors_carries_what_it_may_be_asked_for(unit: Path) -> None:
    found = directives(unit)
    assert set(found) == SECTIONS
    assert set(found["Service"]) >= NEEDED
    (bound,) = [line for line in found["Service"] if line.startswith("LimitNOFILE=")]
    soft, _, hard = bound.removeprefix("LimitNOFILE=").partition(":")
    needed = {"airunner-agent.service": AGENT_DESCRIPTORS + SLOTS_SPAWNED_MAX * SLOT_DESCRIPTORS}
    assert int(hard or soft) >= needed.get(unit.name, DESCRIPTORS)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_its_command_is_one_of_ours_with_options_that_exist(
    unit: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (start,) = [line for line in directives(unit)["Service"] if line.startswith("ExecStart=")]
    program, command, *options = shlex.split(start.removeprefix("ExecStart="))
    assert Path(program).name == "airunner"
    monkeypatch.setenv("COLUMNS", "200")
    assert run([command, "--help"]) == 0
    told = capfd.readouterr().out
    assert all(option in told for option in options if option.startswith("--"))


NUMBERS = {"x86_64": (41, 144), "aarch64": (198, 119)}  # of socket and sched_setscheduler
PRIORITY_GROUPS = {"@system-service", "@resources"}  # in which systemd has sched_setscheduler
CONFINED = """
import ctypes, errno, json, struct, sys
(socket, schedule), denies, program = json.loads(sys.argv[1])
LOAD, EQUAL, RETURN, ALLOW, ERROR = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
def deny_socket(family):  # with the error that RestrictAddressFamilies= gives
    return [(LOAD, 0, 0, 0), (EQUAL, 0, 3, socket), (LOAD, 0, 0, 16), (EQUAL, 0, 1, family),
            (RETURN, 0, 0, ERROR | errno.EAFNOSUPPORT)]
def deny_call(number):
    return [(LOAD, 0, 0, 0), (EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | errno.EPERM)]
filters = {"netlink": deny_socket(16), "schedule": deny_call(schedule)}
rules = [rule for name in denies for rule in filters[name]] + [(RETURN, 0, 0, ALLOW)]
content = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(Filter(len(rules), ctypes.addressof(content))), 0, 0):
    sys.exit("no filters here")
import os
os.execv(program[0], program)
"""
"""Starts a program under a seccomp filter, as systemd would for these two things."""


def denies(unit: Path) -> list[str]:
    """What of the two things that libzmq cannot do without the unit forbids."""
    families: set[str] = set()
    may_schedule = True
    for line in directives(unit)["Service"]:
        name, _, words = line.partition("=")
        if name == "RestrictAddressFamilies":
            families |= set(words.split())
        if name == "SystemCallFilter":  # the first says what the default is, the others take away and add
            named = {"sched_setscheduler", *PRIORITY_GROUPS} & set(words.removeprefix("~").split())
            may_schedule = not words.startswith("~") if named else may_schedule
    forbidden = [] if not families or "AF_NETLINK" in families else ["netlink"]
    return forbidden if may_schedule else [*forbidden, "schedule"]


@pytest.mark.skipif(platform.machine() not in NUMBERS, reason="the numbers of the system calls are not known")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_broker_could_start_as_the_unit_confines_it(unit: Path, tmp_path: Path) -> None:
    """libzmq asks for the interfaces by netlink as it binds, and aborts where its threads may not be scheduled."""
    environ = {"AIRUNNER_HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    airunner = [sys.executable, "-m", "airunner"]
    subprocess.run([*airunner, "certs", "init"], env=environ, check=True, capture_output=True)
    doors = ["--listen", "tcp://0.0.0.0:0", "--events", "tcp://0.0.0.0:0", "--http", "127.0.0.1:0"]
    told = json.dumps([NUMBERS[platform.machine()], denies(unit), [*airunner, "broker", *doors]])
    confined = [sys.executable, "-c", CONFINED, told]
    with subprocess.Popen(confined, env=environ, stderr=subprocess.PIPE, text=True) as broker:
        said: list[str] = []
        for line in broker.stderr:
            said.append(line)
            if "ready:" in line:
                break
        broker.terminate()
    if "no filters here" in said[-1]:
        pytest.skip("this machine allows no filters")
    assert "ready:" in said[-1], "".join(said)
