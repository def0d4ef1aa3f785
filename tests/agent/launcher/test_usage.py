"""What a job's processes use is counted, to the last daemon of theirs; and a look at them says how many there are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import anyio

from airunner.agent.launcher.contract import LaunchSpec, Spent, Vitals
from airunner.agent.launcher.local import ChildLauncher
from tests.agent.launcher.launching import TIMEOUT_S, command, read_lines, shell

MIB: Final = 1 << 20
BURN_MS: Final = 200
BURN: Final = f"""
import os, sys, time
if sys.argv[1:] == ["daemon"] and os.fork():
    os._exit(0)
while time.process_time() < {BURN_MS / 1_000}:
    pass
"""


async def spent_by(launcher: ChildLauncher, spec: LaunchSpec) -> Spent:
    """What it has used, when nothing of it is left; a daemon of its has the grace to come to its end."""
    with anyio.fail_after(TIMEOUT_S):
        process = await launcher.launch(spec)
        await process.wait()
        await process.end(TIMEOUT_S)
    process.close()
    return process.spent


def cpu_ms(spent: Spent) -> int:
    return spent.cpu_user_ms + spent.cpu_system_ms


async def test_processor_time_is_the_sum_over_all_also_of_those_that_others_waited_for(launcher: ChildLauncher) -> None:
    python = command(sys.executable, "-c", BURN)
    assert cpu_ms(await spent_by(launcher, python)) >= BURN_MS
    child = shell(f"{sys.executable} -c '{BURN}'; {sys.executable} -c '{BURN}'")
    assert cpu_ms(await spent_by(launcher, child)) >= 2 * BURN_MS
    assert cpu_ms(await spent_by(launcher, command("true"))) < BURN_MS, "one job's are not the next one's"


async def test_what_a_daemon_has_used_is_counted_when_it_is_gone(launcher: ChildLauncher) -> None:
    """It ignores SIGTERM, so that it comes to its own end within the grace; nobody of the job waits for it."""
    daemon = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)" + BURN
    assert cpu_ms(await spent_by(launcher, command(sys.executable, "-c", daemon, "daemon"))) >= BURN_MS


async def test_the_peak_is_that_of_the_largest_process_and_what_is_written_is_counted(
    launcher: ChildLauncher, tmp_path: Path
) -> None:
    grow = f"import os; held = b'x' * (64 * {MIB}); f = open('f', 'wb'); f.write(bytes({MIB})); os.fsync(f.fileno())"
    spent = await spent_by(launcher, command(sys.executable, "-c", grow, directory=tmp_path))
    assert 64 * MIB <= spent.memory_peak_bytes < 256 * MIB
    small = await spent_by(launcher, command("true"))
    assert small.memory_peak_bytes < 64 * MIB
    if spent.written_bytes:  # a file system in memory has no disk
        assert spent.written_bytes >= MIB
    assert small.written_bytes < MIB


async def test_a_look_finds_all_of_a_job_and_what_they_hold(launcher: ChildLauncher) -> None:
    script = "sleep 1001 & (setsid sleep 1002 &); echo up; exec sleep 1003"
    process = await launcher.launch(shell(script))
    with anyio.fail_after(TIMEOUT_S):
        await read_lines(process.stdout, 1)
        vitals = await process.vitals()
        assert vitals is not None
        assert vitals.processes >= 3
        assert MIB / 2 < vitals.memory_bytes < 64 * MIB
        await process.end(0)
        assert await process.vitals() in (None, Vitals()), "nothing is left"
