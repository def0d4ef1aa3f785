"""Run of the agent's process: connects the agent to its broker, obeys signals, and ends the launcher."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final, Protocol

import anyio
from msgspec.structs import replace

from airunner.agent.agent import Agent
from airunner.agent.attempt.surroundings import Surroundings
from airunner.agent.launcher.local import ChildLauncher
from airunner.agent.plan import Plan
from airunner.agent.reports import Reports
from airunner.certs.curve import SERVER_KEY, load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.certs.principal import Role
from airunner.certs.signing import LogSigner
from airunner.certs.tokensource import tenant_of, token_source
from airunner.transport.channel import Channel
from airunner.transport.http import open_http
from airunner.transport.patience import Patience
from airunner.transport.ports import SYSTEM
from airunner.transport.sockets import CurveNetwork, open_context

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Say(Protocol):
    """Writer of lines for the operator."""

    def __call__(self, *lines: str) -> None:
        """Write these lines."""


async def run(
    home: Home,
    plan: Plan,
    surroundings: Surroundings,
    launcher: ChildLauncher,
    endpoints: tuple[str, ...],
    token: str | None,
    token_file: Path | None,
    http: str | None,
    say: Say,
) -> None:
    """Run the agent until it ends, then stop the launcher, which ends the processes of every job."""
    server = None if http is None else await open_http(http)
    tokens = token_source(
        os.environ, home, explicit=token, file=token_file, subject="agent", roles=[Role.WORK], report=say
    )
    with open_context() as context:
        broker_public = load_broker_public(home, os.environ.get(SERVER_KEY, ""))
        pair = load_client_pair(home)
        network = CurveNetwork(context, pair, broker_public)
        channel = Channel(
            network,
            endpoints,
            lambda: tokens.token_at(SYSTEM.wall_ms() / 1_000),
            SYSTEM,
            Patience(notice=lambda endpoint, _: say(f"waiting for the broker at {endpoint}"), doubt=say),
        )
        plan = replace(plan, tenant=tenant_of(tokens.token_at(SYSTEM.wall_ms() / 1_000)))
        reports = Reports(lambda lines: say(*lines))
        agent = Agent(plan, channel, surroundings, SYSTEM, reports.add, http=server, signer=LogSigner(pair.secret))
        async with anyio.create_task_group() as obeying:
            obeying.start_soon(_obey_signals, agent, launcher, say)
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(reports.run)
                    group.start_soon(launcher.watch)
                    await agent.run()
                    group.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await launcher.aclose()
            obeying.cancel_scope.cancel()
    for number in SIGNALS:  # another signal changes nothing now, nor the exit code
        signal.signal(number, signal.SIG_IGN)
    say("airunner agent stopped")


async def _obey_signals(agent: Agent, launcher: ChildLauncher, say: Say) -> None:
    """Obey signals: the first drains, the second stops and releases running jobs, the third kills them and exits."""
    drain_s = agent.plan.drain_s_max
    with anyio.open_signal_receiver(*SIGNALS) as signals:
        async with anyio.create_task_group() as group:
            count = 0
            async for number in signals:
                count += 1
                match count:
                    case 1:
                        limit = "" if drain_s is None else f" for up to {drain_s:g} s"
                        say(f"draining: no new jobs, waiting{limit} for running ones; signal again to give them back")
                        agent.orders.drain.set()
                        if drain_s is not None:
                            group.start_soon(_stop_after, drain_s, agent, say)
                    case 2:
                        say("stopping: running jobs are stopped and given back; signal again to kill them and exit")
                        agent.orders.stop.set()
                    case _:
                        say("killing the running jobs: other agents get them, when the leases expire at the latest")
                        launcher.kill()
                        os._exit(128 + number)


async def _stop_after(seconds: float, agent: Agent, say: Say) -> None:
    """Stop the running jobs of a draining agent, and give them back, after a time."""
    await anyio.sleep(seconds)
    if not agent.orders.stop.is_set():
        say(f"stopping: {seconds:g} s have passed (--drain-timeout), running jobs are stopped and given back")
        agent.orders.stop.set()
