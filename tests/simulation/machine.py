"""Machines of the simulated world: processes that can be stopped, woken and killed between any two steps.

All tasks that begin under a machine belong to it. A stopped machine's tasks are not run; what wakes them meanwhile
is kept, and they find out when they go on, as a process does after SIGSTOP and SIGCONT. A killed machine is one
that is stopped for ever: no `finally`, no cancellation, nothing of it runs again. The simulated run ends by
ending its process, so nobody ever has to tidy up after it.

A machine that sleeps (a laptop's lid is shut, a virtual machine is suspended) is one that is stopped, and whose
monotonic clock stands still as Linux's does: its waits go on for as long as was left of them. Time that counts sleep in
is `true_s`.

trio knows nothing of this. Its scheduler is the one place through which every step goes, and here it is asked
first. `schedule_by` also makes it take its turns as a seed says.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import Any

import anyio
import trio
import trio.testing
from trio._core import _run as trio_run

from airunner.transport.bell import Bell

_machine: ContextVar[Machine | None] = ContextVar("machine", default=None)
_reschedule = trio_run.Runner.reschedule


def true_s() -> float:
    """Virtual seconds since the run began, asleep or not: the time of the world."""
    return float(trio_run.GLOBAL_RUN_CONTEXT.runner.clock.current_time())


class Machine:
    """One process. `crashed` is what ended it by itself, if anything did."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.crashed: BaseException | None = None
        self.ended = anyio.Event()
        self.refuses = 0.0  # to start a process: how likely
        self.disk_full = False
        self.asleep_s = 0.0  # in all
        self._slept_at_s: float | None = None
        self._at_wakeup: list[Callable[[], None]] = []
        self._woken = Bell()
        self._held: list[Any] = []

    def start(self, group: anyio.abc.TaskGroup, main: Callable[[], Awaitable[None]]) -> None:
        """Run `main`, and all that it starts, as this machine."""
        group.start_soon(self._run, main, name=self.name)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        queue = trio_run.GLOBAL_RUN_CONTEXT.runner.runq
        mine = [task for task in queue if task.context.get(_machine) is self]
        for task in mine:
            queue.remove(task)
        self._held += mine

    def sleep(self) -> None:
        """Everything on this machine stands still, and its monotonic clock too."""
        self.stop()
        self._slept_at_s = true_s()

    @property
    def asleep(self) -> bool:
        """Whether it sleeps."""
        return self._slept_at_s is not None

    def when_awake(self, act: Callable[[], None]) -> None:
        """Do this now, or when the machine wakes up."""
        if self.asleep:
            self._at_wakeup.append(act)
        else:
            act()

    def boot_s(self) -> float:
        """Its CLOCK_BOOTTIME, which is the world's time."""
        return true_s()

    def monotonic_s(self) -> float:
        """Its CLOCK_MONOTONIC, which is anyio's clock there."""
        return true_s() - self.asleep_s

    async def watch_steps(self, react: Callable[[], None]) -> None:
        """As `transport.ports.watch_steps`."""
        while True:
            await self._woken.wait()
            react()

    def wake(self) -> None:
        """SIGCONT, or the end of a sleep."""
        assert self.alive, "the dead are not woken"
        self.stopped = False
        if self._slept_at_s is not None:
            _postpone(self, true_s() - self._slept_at_s)
            self.asleep_s += true_s() - self._slept_at_s
            self._slept_at_s = None
            acts, self._at_wakeup = self._at_wakeup, []
            for act in acts:
                act()
            self._woken.ring()
        held, self._held = self._held, []
        trio_run.GLOBAL_RUN_CONTEXT.runner.runq.extend(held)

    def kill(self) -> None:
        """SIGKILL. What it had sent is sent, what it had written is written, and nothing else."""
        self.alive = False
        self.stop()
        self.ended.set()

    def hold(self, task: Any) -> None:
        """This task would have run now."""
        self._held.append(task)

    async def _run(self, main: Callable[[], Awaitable[None]]) -> None:
        _machine.set(self)
        try:
            await main()
        except Exception as error:  # noqa: BLE001 - the edge of a machine: whatever ends a process is seen outside
            self.crashed = error
        self.alive = False
        self.ended.set()


def _reschedule_unless_held(self: Any, task: Any, *given: Any) -> None:
    _reschedule(self, task, *given)
    machine = task.context.get(_machine)
    if machine is not None and machine.stopped:
        self.runq.pop()
        machine.hold(task)


def _machine_time(self: Any) -> float:
    machine = _machine.get()
    return float(self.clock.current_time()) if machine is None else machine.monotonic_s()


@contextmanager
def _registered_in_world_time(self: Any) -> Iterator[None]:
    """What trio does when a scope's deadline may have changed; the deadline is the machine's, the queue the world's."""
    try:
        yield
    finally:
        machine = _machine.get()
        asleep_s = 0.0 if machine is None else machine.asleep_s
        over = self._cancel_status is None or self._cancel_called
        _register(self, math.inf if over else self._deadline + asleep_s)


def _register(scope: Any, new: float) -> None:
    old, deadlines = scope._registered_deadline, trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines
    if old != new:
        scope._registered_deadline = new
        if old != math.inf:
            deadlines.remove(old, scope)
        if new != math.inf:
            deadlines.add(new, scope)


def _postpone(machine: Machine, length_s: float) -> None:
    """All that this machine's tasks wait for comes later by as long as it slept."""
    heap = list(trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines._heap)
    scopes = {id(scope): scope for deadline, _, scope in heap if deadline == scope._registered_deadline}
    for scope in scopes.values():
        if _machine_of(scope._cancel_status) is machine:
            _register(scope, scope._registered_deadline + length_s)


def _machine_of(status: Any) -> Machine | None:
    """Whose tasks are in this scope, or in one within."""
    for task in status._tasks:
        machine: Machine | None = task.context.get(_machine)
        return machine
    for child in status._children:
        if (found := _machine_of(child)) is not None:
            return found
    return None


def this_machine() -> Machine | None:
    """The machine whose task is running; None for the world itself."""
    return _machine.get()


def schedule_by(random: Random) -> None:
    """From here on trio asks machines, and takes turns as `random` says."""
    trio_run.Runner.reschedule = _reschedule_unless_held
    trio_run.Runner.current_time = _machine_time
    trio_run.CancelScope._might_change_registered_deadline = _registered_in_world_time
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(random.getrandbits(64))


def run_virtual(main: Callable[[], Awaitable[None]], random: Random) -> None:
    """Run the world on a clock that jumps to the next thing to happen."""
    schedule_by(random)
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
