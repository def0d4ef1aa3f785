"""`python -m tests.acceptance.mortal …` is airunner, but its Gatekeeper dies of SIGUSR1 and falls silent at SIGUSR2."""

from __future__ import annotations

import signal
import sys

import anyio

from airunner.__main__ import main
from airunner.broker.gatekeeper import Gatekeeper

DIED = "the Gatekeeper was killed"
SILENT = "the Gatekeeper is silent"

_run = Gatekeeper.run


async def _mortal(self: Gatekeeper) -> None:
    with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(_run, self)
            async for number in signals:
                if number == signal.SIGUSR1:
                    raise RuntimeError(DIED)
                group.cancel_scope.cancel()
        sys.stderr.write(f"{SILENT}\n")
        sys.stderr.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    Gatekeeper.run = _mortal  # type: ignore[method-assign]
    main()
