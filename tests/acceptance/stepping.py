"""`python -m tests.acceptance.stepping …` is airunner, for which SIGUSR1 sets the machine's time an hour forward."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import anyio
import msgspec

from airunner.__main__ import main
from airunner.transport import ports as edges

STEP_MS = 3_600_000
STEPPED = "the time was set"

_steps: list[int] = []


async def _watch_steps(react: Callable[[], None]) -> None:
    with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            _steps.append(STEP_MS)
            react()
            sys.stderr.write(f"{STEPPED}\n")
            sys.stderr.flush()


if __name__ == "__main__":
    real = edges.SYSTEM
    here = msgspec.structs.replace(real, wall_ms=lambda: real.wall_ms() + sum(_steps), watch_steps=_watch_steps)
    vars(edges)["SYSTEM"] = here
    main()
