"""Machines of the simulated world: processes that can be stopped, woken and killed between any two steps.

All tasks that begin under a machine belong to it. A stopped machine's tasks are not run; what wakes them meanwhile
is kept, and they find out when they go on, as a process does after SIGSTOP and SIGCONT. A killed machine is one
that is stopped for ever: no `finally`, no cancellation, nothing of it runs again. The simulated run ends by
ending its process, so nobody ever has to tidy up after it.

trio knows nothing of this. Its scheduler is the one place through which every step goes, and here it is asked
first. `schedule_by` also makes it take its turns as a seed says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from random import Random
from typing import Any

import anyio
import trio
import trio.testing
from trio._core import _run as trio_run

_machine: ContextVar[Machine | None] = ContextVar("machine", default=None)
_reschedule = trio_run.Runner.reschedule


class Machine:
    """One process. `crashed` is what ended it by itself, if anything did."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.crashed: BaseException | None = None
        self.ended = anyio.Event()
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

    def wake(self) -> None:
        """SIGCONT."""
        assert self.alive, "the dead are not woken"
        self.stopped = False
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


def this_machine() -> Machine | None:
    """The machine whose task is running; None for the world itself."""
    return _machine.get()


def schedule_by(random: Random) -> None:
    """From here on trio asks machines, and takes turns as `random` says."""
    trio_run.Runner.reschedule = _reschedule_unless_held
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(random.getrandbits(64))


def run_virtual(main: Callable[[], Awaitable[None]], random: Random) -> None:
    """Run the world on a clock that jumps to the next thing to happen."""
    schedule_by(random)
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
