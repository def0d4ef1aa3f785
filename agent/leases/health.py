"""Machine health: whether this agent's machine can run jobs. While it cannot, the agent leases none.

```
 refused ──► trouble ── probes, with growing pauses between them ──► one passes: the trouble is over
                │         ▲ also when an attempt ends, which may free what the machine lacks
                └ parked requests end, the broker gets the reason
```

A slot reports here that the machine could not run its job. The agent logs when trouble begins and when it ends. Each
heartbeat sends the reason to the broker, which shows it in `airunner agents` and /health.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.launcher.refusal import MachineRefused, counts
from airunner.agent.leases.probes import Probes
from airunner.protocol.names import TEXT_CHARS_MAX
from airunner.protocol.printable import one_line
from airunner.transport.backoff import Backoff
from airunner.transport.bell import Bell

PROBE_FIRST_MS: Final = 1_000  # longest pause before the first probe; it doubles with each probe
PROBE_LAST_MS: Final = 30_000  # longest pause before any probe
CALM_S: Final = 60.0  # seconds without trouble after which the pauses start from the shortest again


class Health:
    """Health of the machine.

    `closed` is set during trouble, after which it is another flag: ask for it each time. `changed`, which the Renewer
    sets, is called when trouble begins and when it ends.
    """

    def __init__(self, probes: Probes, random: Callable[[], float], report: Callable[[str], None]) -> None:
        self._probes = probes
        self._report = report
        self.changed: Callable[[], None] = lambda: None
        self._refusal: MachineRefused | None = None
        self._well_s = -CALM_S
        # Jitter only in the upper half of the pause: a machine that lacks something needs time.
        self._backoff = Backoff(lambda: (1 + random()) / 2, PROBE_FIRST_MS, PROBE_LAST_MS)
        self._changed = Bell()
        self.closed = Flag()

    @property
    def trouble(self) -> str:
        """The reason why this machine cannot run jobs now; empty: it can."""
        return one_line(self._refusal.trouble)[:TEXT_CHARS_MAX] if self._refusal is not None else ""

    async def until_well(self, drain: Flag) -> None:
        """Wait until this machine can run jobs, or the agent drains."""
        while self.closed.is_set() and not drain.is_set():
            with cancelled_by(drain):
                await self._changed.wait()

    async def refused(self, refusal: MachineRefused, *, begun: bool) -> bool:
        """Stop leasing, and return whether the release counts towards `max_attempts`. `begun`: the command was started.

        If the refusal was only `guessed` from a program's failure, probe first: if the probe passes, leasing goes on.
        Call this when the attempt has freed all that it used.
        """
        able = refusal.guessed and await self._probes.passes(refusal)
        if not able:
            if refusal.guessed:
                self._probes.raise_bar(refusal)
            self._close(refusal)
        return counts(refusal, begun=begun, able=able)

    def _close(self, refusal: MachineRefused) -> None:
        if self._refusal is not None:
            self._refusal.room_bytes = max(self._refusal.room_bytes, refusal.room_bytes)
            return
        if anyio.current_time() - self._well_s >= CALM_S:
            self._backoff.reset()
        self._refusal = refusal
        self._report(f"no job can be run here now, and none is leased: {self.trouble}")
        self.closed.set()
        self._changed.ring()
        self.changed()

    def attempt_ended(self) -> None:
        """Probe at once during trouble: an attempt has ended, and may have freed what the machine lacks."""
        if self._refusal is not None:
            self._changed.ring()

    async def run(self) -> None:
        """Probe the machine during trouble, until cancelled."""
        while True:
            if self._refusal is None:
                await self._changed.wait()
                continue
            with anyio.move_on_after(self._backoff.next_s()) as pause:
                await self._changed.wait()
            if not pause.cancelled_caught:  # an attempt has ended: this extra probe does not lengthen the next pause
                self._backoff.failures -= 1
            if await self._probes.passes(self._refusal):
                self._refusal = None
                self._well_s = anyio.current_time()
                self._report("jobs can be run here again")
                self.closed = Flag()
                self._changed.ring()
                self.changed()
