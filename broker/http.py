"""Pages of the broker's HTTP server: /health and /metrics.

A degraded broker responds with 200 too: it still serves requests, so a load balancer should keep sending it traffic. A
broker whose store does not respond responds with 503, because every request waits for the store.
"""

from __future__ import annotations

from airunner.broker.health import Health, Status
from airunner.broker.metrics import METRICS, BrokerMetrics
from airunner.transport.exposition import MetricsPage
from airunner.transport.http import HttpReply, Page, health_reply


def broker_pages(health: Health, metrics: BrokerMetrics) -> dict[str, Page]:
    """Make the broker's pages, by path."""

    async def health_page(accept: str) -> HttpReply:
        status = health.status
        line = "503 Service Unavailable" if status is Status.UNAVAILABLE else "200 OK"
        return health_reply(status, health.conditions, accept, line)

    return {"/health": health_page, "/metrics": MetricsPage(METRICS, metrics.values)}
