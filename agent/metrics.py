"""Pages of the agent's HTTP server: /health and /metrics, for its operator.

An agent whose machine cannot run jobs, or that no broker answers, is `degraded`, with 200: it mends itself, and to
restart it would end the jobs that run. Everybody who can reach the pages can read them: they have no name of a job.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from msgspec import Struct

from airunner.agent.leases.attemptcounts import AttemptCounts
from airunner.agent.leases.health import Health
from airunner.agent.leases.occupancy import Occupancy
from airunner.agent.leases.renewer import Renewer
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.agent.plan import Plan
from airunner.transport.channel import Channel
from airunner.transport.exposition import MetricsPage
from airunner.transport.http import HttpReply, Page, health_reply
from airunner.transport.metric import Metric, MetricKind, Samples

SLOTS: Final = Metric("airunner_agent_slots", MetricKind.GAUGE, "Slots: busy with a job, or idle.", ("state",))
LEASES: Final = Metric("airunner_agent_leases", MetricKind.GAUGE, "Jobs that the agent holds a lease of.")
ATTEMPTS: Final = Metric(
    "airunner_agent_attempts",
    MetricKind.COUNTER,
    "Attempts that have ended: with the job's state, retried, released, lost, or left to the home's next agent.",
    ("outcome",),
)
PREPARE: Final = Metric(
    "airunner_agent_prepare_seconds",
    MetricKind.HISTOGRAM,
    "Time from an attempt's lease to its command's start: workspace, checkout and hooks, in seconds.",
)
TROUBLED: Final = Metric("airunner_agent_troubled", MetricKind.GAUGE, "1 while the machine cannot run jobs; else 0.")
SILENT: Final = Metric("airunner_agent_broker_silent", MetricKind.GAUGE, "1 while no broker answers; else 0.")
CONNECTIONS: Final = Metric("airunner_agent_connections", MetricKind.COUNTER, "Connections opened to brokers.")
SPOOL: Final = Metric(
    "airunner_spool_bytes", MetricKind.GAUGE, "Bytes of events on disk that no broker has acknowledged yet."
)
SPOOL_MAX: Final = Metric("airunner_spool_max_bytes", MetricKind.GAUGE, "Bytes that the spools may have (--spool-gib).")
FREE: Final = Metric("airunner_agent_free_bytes", MetricKind.GAUGE, "Bytes free on the disk of the agent's home.")
METRICS: Final = (SLOTS, LEASES, ATTEMPTS, PREPARE, TROUBLED, SILENT, CONNECTIONS, SPOOL, SPOOL_MAX, FREE)


class AgentMetrics(Struct, frozen=True):
    """Metrics of an agent, read from its parts."""

    plan: Plan
    channel: Channel
    occupancy: Occupancy
    counts: AttemptCounts
    renewer: Renewer
    health: Health
    room: SpoolRoom

    async def values(self) -> dict[str, Samples]:
        """Gather all values, by the names of `METRICS`."""
        busy = self.occupancy.busy
        values: dict[str, Samples] = {
            SLOTS.name: {("busy",): busy, ("idle",): self.plan.slots - busy},
            LEASES.name: {(): self.renewer.leases},
            ATTEMPTS.name: {(outcome,): count for outcome, count in self.counts.outcomes.items()},
            PREPARE.name: {(): self.counts.prepared},
            TROUBLED.name: {(): bool(self.health.trouble)},
            SILENT.name: {(): self.channel.silent},
            CONNECTIONS.name: {(): self.channel.connections},
            SPOOL.name: {(): self.room.used_bytes},
            SPOOL_MAX.name: {(): self.room.bytes_max},
        }
        with suppress(OSError):
            disk = os.statvfs(self.plan.home)
            values[FREE.name] = {(): disk.f_bavail * disk.f_frsize}
        return values

    def pages(self) -> dict[str, Page]:
        """Make the agent's pages, by path."""

        async def health_page(accept: str) -> HttpReply:
            conditions = {"broker": "no broker answers"} if self.channel.silent else {}
            if self.health.trouble:
                conditions["machine"] = self.health.trouble
            return health_reply("degraded" if conditions else "ok", conditions, accept)

        return {"/health": health_page, "/metrics": MetricsPage(METRICS, self.values)}
