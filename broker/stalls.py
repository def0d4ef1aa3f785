"""Stalls of the store's disk or server: reports in /health that an offloaded read or write takes too long.

A disk that does not answer (a network disk, or one that retries internally) raises no error: the batch waits for it,
and every request waits for the batch. The HTTP server answers meanwhile, so /health can show the stall.
"""

from __future__ import annotations

from typing import Final

import anyio

from airunner.broker.health import Health
from airunner.broker.offload import Offload, Then, Work

STALLED_S: Final = 10.0  # duration of a read or write that counts as a stall; a slow disk takes some 0.1 s
DISK: Final = "the store's disk has not finished a read or write for {:.0f} s: look at the disk"
SERVER: Final = "the store is away: its server has not answered for {:.0f} s: look at the server, and the network to it"
CONDITION: Final = "stall"  # name of the condition in /health


class Stalls:
    """Stall detector: wraps `offload`, and reports to `health` when a piece of work does not end.

    `subject` says what does not finish: `DISK` or `SERVER`.
    """

    def __init__(self, offload: Offload, health: Health, subject: str = DISK) -> None:
        self._offload = offload
        self._health = health
        self._subject = subject
        self._since_s: float | None = None
        self._stalled = False  # as it was judged last
        health.watch(self._judge)

    def __call__(self, work: Work, then: Then) -> None:
        """Offload `work`, and record since when it has been running."""

        def ended(failed: BaseException | None) -> None:
            self._since_s = None
            if self._stalled:  # it is over at once, not at the next look
                self._judge()
            then(failed)

        self._since_s = anyio.current_time()
        self._offload(work, ended)

    def _judge(self) -> None:
        since_s = self._since_s
        stalled_s = 0.0 if since_s is None else anyio.current_time() - since_s
        self._stalled = stalled_s >= STALLED_S
        if self._stalled:
            self._health.fail(CONDITION, f"{self._subject.format(stalled_s)}; requests wait and nothing is lost")
        else:
            self._health.clear(CONDITION)
