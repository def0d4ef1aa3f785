"""A machine that sleeps: its leases go on meanwhile, and it finds out when it wakes.

What the kernel's clocks say after a sleep is had in earnest from a time namespace: for what is started in it, so much
more time has passed since the boot, and no more on the clock that stands still in a sleep.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import pytest
from trio.testing import MockClock

from airunner.agent.leases.heldlease import MARGIN_S_MAX
from airunner.protocol.requests import UpdateJob
from airunner.transport.ports import SYSTEM, Edges, Sent
from tests.agent.launcher.launching import python
from tests.agent.playing import VISIBILITY_S, staged
from tests.client.wire import edges

NEW_TIME = 0x80  # CLONE_NEWTIME of unshare(2)
NOT_POSSIBLE = 77
ASLEEP_S = 55
LEASE_S = 40
LAUNCHED_ASLEEP = f"""
import anyio, ctypes, sys
from pathlib import Path
from airunner.agent.launcher.contract import LeaseEnded
from airunner.agent.launcher.local import start_launcher
from airunner.transport.timers import boot_s
from tests.agent.launcher.launching import read_lines, shell
if ctypes.CDLL(None).unshare({NEW_TIME}):
    sys.exit({NOT_POSSIBLE})
Path("/proc/self/timens_offsets").write_text("boottime {ASLEEP_S} 0")
async def told(process):
    try:
        print(await process.wait(), flush=True)
    except LeaseEnded:
        print("ended", flush=True)
async def main():
    launcher = start_launcher()  # which is in the namespace, where we are not
    for left_s in ({LEASE_S}, {ASLEEP_S} + 0.2):
        process = await launcher.launch(shell("echo; exec sleep 1000"))
        await read_lines(process.stdout, 1)
        process.keep_until(boot_s() + left_s)
        await told(process)
    try:
        await told(await launcher.launch(shell("exec sleep 1000"), boot_s() + {LEASE_S}))
    except LeaseEnded:
        print("not begun", flush=True)
    await launcher.aclose()
anyio.run(main)
"""


class Sleep:
    """A machine whose sleep can be had at will: its waits have stood still for `asleep_s`."""

    def __init__(self) -> None:
        self.asleep_s = 0.0
        self._react: list[Callable[[], None]] = []

    @property
    def edges(self) -> Edges:
        return msgspec.structs.replace(
            edges(2), boot_s=lambda: anyio.current_time() + self.asleep_s, watch_steps=self._watch
        )

    def sleep(self, seconds: float) -> None:
        """It has slept so long, and wakes."""
        self.asleep_s += seconds
        for react in self._react:
            react()

    async def _watch(self, react: Callable[[], None]) -> None:
        self._react.append(react)
        await anyio.sleep_forever()


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return getattr(request, "param", ("trio", {"clock": MockClock(autojump_threshold=0)}))


def test_what_a_keeper_keeps_is_killed_when_the_machine_has_slept_past_its_deadline() -> None:
    with python(LAUNCHED_ASLEEP) as launched:
        told, _ = launched.communicate()
    if launched.returncode == NOT_POSSIBLE:
        pytest.skip("only root may make a time namespace, in which so much time has passed")
    assert told.split(b"\n") == [b"ended", b"ended", b"not begun", b""]


async def test_a_lease_that_ran_out_in_a_sleep_is_ended_when_the_machine_wakes(tmp_path: Path) -> None:
    machine = Sleep()
    async with staged(tmp_path, here=machine.edges) as stage:
        _, process = await stage.begun()
        stage.wire.send = lambda *_: Sent.GONE
        slept_s = anyio.current_time()
        machine.sleep(VISIBILITY_S)
        await process.closed.wait()
        assert process.graces_s == [0]
        assert anyio.current_time() - slept_s < 1


async def test_a_lease_that_a_sleep_has_left_time_for_is_renewed_when_the_machine_wakes(tmp_path: Path) -> None:
    machine = Sleep()
    async with staged(tmp_path, here=machine.edges) as stage:
        _, process = await stage.begun()
        until_s = process.deadline_s
        machine.sleep(VISIBILITY_S - 2 * MARGIN_S_MAX)
        await anyio.sleep(1)  # virtual
        assert [len(one.leases) for one in stage.wire.requests if isinstance(one, UpdateJob)] == [1]
        assert process.deadline_s >= until_s + VISIBILITY_S - 2 * MARGIN_S_MAX


async def test_a_grant_that_came_before_a_sleep_is_renewed_before_it_is_begun(tmp_path: Path) -> None:
    machine = Sleep()
    async with staged(tmp_path, here=machine.edges) as stage:
        send = stage.wire.send

        def asleep(peer: bytes, frames: list[bytes]) -> Sent:
            machine.sleep(VISIBILITY_S / 2 + 1)
            stage.wire.send = send
            return send(peer, frames)

        await anyio.sleep(1)  # virtual: its request is parked
        stage.wire.send = asleep
        await stage.begun()
        assert any(isinstance(one, UpdateJob) for one in stage.wire.requests)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_steps_of_the_clock_are_asked_of_the_kernel_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airunner.transport.timers._NEVER_S", 1)  # long ago: the timer wakes as by a step
    told = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(SYSTEM.watch_steps, told.set)
        await told.wait()
        assert any("clockid: 0" in one and "settime flags: 03" in one for one in descriptors())
        group.cancel_scope.cancel()


def descriptors() -> list[str]:
    """What the kernel says of each of ours."""
    told: list[str] = []
    for path in Path("/proc/self/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # by which the folder was read
            told.append(path.read_text())
    return told
