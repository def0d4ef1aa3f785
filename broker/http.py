"""Pages of the broker's HTTP server: /health and /metrics.

A degraded broker responds with 200 too: it still serves requests, so a load balancer should keep sending it traffic. A
broker whose store does not respond responds with 503, because every request waits for the store.
"""

from __future__ import annotations

import msgspec

from airunner.broker.health import Health, Status
from airunner.broker.metrics import METRICS, BrokerMetrics
from airunner.transport.exposition import MetricsPage
from airunner.transport.http import JSON, HttpReply, Page, prefers_json


def broker_pages(health: Health, metrics: BrokerMetrics) -> dict[str, Page]:
    """Make the broker's pages, by path."""

    async def health_page(accept: str) -> HttpReply:
        return respond_health(health, json=prefers_json(accept))

    return {"/health": health_page, "/metrics": MetricsPage(METRICS, metrics.values)}


def respond_health(health: Health, *, json: bool) -> HttpReply:
    """Make the reply with the broker's health, as text or as JSON."""
    status, conditions = health.status, health.conditions
    line = "503 Service Unavailable" if status is Status.UNAVAILABLE else "200 OK"
    if json:
        body = {"status": status, "conditions": conditions} if conditions else {"status": status}
        return HttpReply(msgspec.json.encode(body), JSON, line)
    words = "".join(f"{name}: {words}\n" for name, words in conditions.items())
    return HttpReply(f"{status}\n{words}".encode(), status=line)
