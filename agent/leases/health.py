"""Health of this agent's machine: whether jobs can be run here now. While they cannot, none is leased.

```
 refused ──► trouble ── a probe, again and again with more and more time between ──► it passes: well again
                │                                ▲ and at once when an attempt has ended, which may have held it
                └ parked requests end, the broker hears why
```

An attempt that the machine refuses reports it here. The agent reports once that trouble begins, and once that it ends;
each heartbeat carries it to the broker, which shows it in `airunner agents` and /health.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.launcher.refusal import HINTS, MachineRefused, counts
from airunner.agent.leases.probes import Probes
from airunner.protocol.names import TEXT_CHARS_MAX
from airunner.protocol.printable import one_line
from airunner.transport.backoff import Backoff
from airunner.transport.bell import Bell

PROBE_FIRST_MS: Final = 1_000
PROBE_LAST_MS: Final = 30_000
CALM_S: Final = 60.0  # after which a trouble counts as new, and is probed as soon as the first


class Health:
    """Health of the machine. `changed` is called when trouble begins and ends; `closed` is set meanwhile."""

    def __init__(self, probes: Probes, random: Callable[[], float], report: Callable[[str], None]) -> None:
        self._probes = probes
        self._report = report
        self.changed: Callable[[], None] = lambda: None
        self._refusal: MachineRefused | None = None
        self._well_s = -CALM_S
        # Of a pause at least half: a machine that is out of something is not helped by trying at once.
        self._backoff = Backoff(lambda: (1 + random()) / 2, PROBE_FIRST_MS, PROBE_LAST_MS)
        self._changed = Bell()
        self.closed = Flag()

    @property
    def trouble(self) -> str:
        """The reason why no job can be run here now; empty when jobs can."""
        if self._refusal is None:
            return ""
        refusal = self._refusal
        return one_line(f"{refusal.message}: out of {refusal.scarce}; {HINTS[refusal.scarce]}")[:TEXT_CHARS_MAX]

    async def well(self, drain: Flag) -> None:
        """Wait until jobs can be run, or the agent drains."""
        with cancelled_by(drain):
            while self._refusal is not None:
                await self._changed.wait()

    async def refused(self, refusal: MachineRefused, *, begun: bool) -> bool:
        """Stop leasing unless the machine is found able, and return whether giving the job back counts.

        `begun`: the job's command was running. The attempt must hold nothing any more.
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
        """Probe at once: an attempt has ended, which may have held what the machine lacks."""
        if self._refusal is not None:
            self._changed.ring()

    async def run(self) -> None:
        """Probe for ever, while there is trouble."""
        while True:
            if self._refusal is None:
                await self._changed.wait()
                continue
            with anyio.move_on_after(self._backoff.next_s()) as pause:
                await self._changed.wait()
            if not pause.cancelled_caught:  # an attempt has ended sooner: the next pause is no longer for it
                self._backoff.failures -= 1
            if await self._probes.passes(self._refusal):
                self._refusal = None
                self._well_s = anyio.current_time()
                self._report("jobs can be run here again")
                self.closed = Flag()
                self._changed.ring()
                self.changed()
