"""Pages of the broker's HTTP server: /health, /health/live, /health/ready and /metrics.

A degraded broker is ready, and responds with 200: it still serves requests, so a load balancer should keep sending it
traffic. A broker whose store does not respond, or is away, is not ready, and responds with 503: every request waits for
the store. It is live all the same: starting it again would mend nothing, and would lose what waits.
"""

from __future__ import annotations

from typing import Final

from airunner.broker.health import Health, Status
from airunner.broker.metrics import METRICS, BrokerMetrics
from airunner.transport.exposition import MetricsPage
from airunner.transport.http import HttpReply, Page, health_reply

READY: Final = "200 OK"
NOT_READY: Final = "503 Service Unavailable"


def broker_pages(health: Health, metrics: BrokerMetrics) -> dict[str, Page]:
    """Make the broker's pages, by path."""

    async def health_page(accept: str) -> HttpReply:
        status = health.status
        ready = status is not Status.UNAVAILABLE
        facts = {"live": True, "ready": ready}
        return health_reply(status, health.conditions, accept, READY if ready else NOT_READY, facts=facts)

    async def live_page(_accept: str) -> HttpReply:
        return HttpReply(b"live\n")

    async def ready_page(_accept: str) -> HttpReply:
        if health.status is Status.UNAVAILABLE:
            return HttpReply(b"not ready: /health says why\n", status=NOT_READY)
        return HttpReply(b"ready\n")

    return {
        "/health": health_page,
        "/health/live": live_page,
        "/health/ready": ready_page,
        "/metrics": MetricsPage(METRICS, metrics.values),
    }
