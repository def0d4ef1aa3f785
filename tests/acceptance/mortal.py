"""`python -m tests.acceptance.mortal …` is airunner, but its Gatekeeper fails at SIGUSR1."""

from __future__ import annotations

import signal

import anyio

from airunner.__main__ import main
from airunner.broker.gatekeeper import Gatekeeper

DIED = "the Gatekeeper was killed"

_run = Gatekeeper.run


async def _mortal(self: Gatekeeper) -> None:
    with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(_run, self)
            async for _ in signals:
                raise RuntimeError(DIED)


if __name__ == "__main__":
    Gatekeeper.run = _mortal  # type: ignore[method-assign]
    main()
