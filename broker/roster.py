"""Roster of agents: which were active lately, and which connection holds each leased job.

Soft state: the Gateway builds it from agents' requests, and it ends with the broker; no promise depends on it. It is
bounded for each tenant, so that no tenant displaces another's agents; the least recently active agent is removed first.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, assert_never

from msgspec import Struct

from airunner.protocol.replies import AgentsListed, AgentSummary
from airunner.protocol.requests import PAGE_SIZE_MAX, DequeueJob, UpdateJob

AGENTS_MAX: Final = 10_000  # of one tenant
AGENTS_BYTES_MAX: Final = 8 * 1_048_576  # of the names, tags and troubles of one tenant's agents: no quota counts them
HEARD_BYTES: Final = 256  # of an agent without tags, roughly
HOLDERS_MAX: Final = 65_536  # running jobs of one tenant; the holder of one more is not nudged: it waits to heartbeat
FORGOTTEN_MS: Final = 600_000  # an idle agent asks every 30 s, a busy one every 60 s


class _Heard(Struct, frozen=True):
    slots: int
    version: str
    seen_ms: int
    tags: dict[str, str]
    trouble: str

    @property
    def size_bytes(self) -> int:
        """Size in memory, roughly."""
        tags = sum(len(name) + len(value) for name, value in self.tags.items())
        return HEARD_BYTES + len(self.version) + len(self.trouble) + tags


class Roster:
    """Roster of all tenants' agents and holders."""

    def __init__(self) -> None:
        self._agents: dict[str, dict[str, _Heard]] = {}
        self._bytes: Counter[str] = Counter()  # by tenant
        self._holders: dict[str, dict[str, bytes]] = {}
        self._troubled: dict[tuple[str, str], int] = {}  # when each was last heard of; the one longest ago is first

    def heard(self, tenant: str, request: DequeueJob | UpdateJob, now_ms: int) -> None:
        """Record an agent's request: its slots, version, tags and trouble."""
        if request.agent is None:
            return
        agents = self._agents.setdefault(tenant, {})
        last = agents.pop(request.agent, None)
        match request:
            case UpdateJob(trouble=trouble):
                pass
            case DequeueJob(wait_ms=0):  # perhaps it only ends its wait
                trouble = last.trouble if last else ""
            case DequeueJob():
                trouble = ""  # it waits for jobs
            case _:
                assert_never(request)
        heard = _Heard(request.agent_slots, request.version, now_ms, request.tags, trouble)
        agents[request.agent] = heard
        self._bytes[tenant] += heard.size_bytes - (last.size_bytes if last else 0)
        self._troubled.pop((tenant, request.agent), None)
        if trouble:
            self._troubled[tenant, request.agent] = now_ms
        while len(agents) > AGENTS_MAX or self._bytes[tenant] > AGENTS_BYTES_MAX:
            forgotten = next(iter(agents))
            self._bytes[tenant] -= agents.pop(forgotten).size_bytes
            self._troubled.pop((tenant, forgotten), None)

    def troubled(self, now_ms: int) -> int:
        """Count the agents that were active lately and can run no jobs."""
        while self._troubled:
            longest_ago = next(iter(self._troubled))
            if now_ms - self._troubled[longest_ago] < FORGOTTEN_MS:
                break
            del self._troubled[longest_ago]
        return len(self._troubled)

    def page(self, tenant: str, after: str, leases: dict[str, int], now_ms: int) -> AgentsListed:
        """Make a page of the tenant's agents, by name: those active lately, and all that hold leases."""
        found = {
            name: AgentSummary(
                name=name,
                slots=heard.slots,
                leases=leases.get(name, 0),
                seen_ms=heard.seen_ms,
                version=heard.version,
                tags=heard.tags,
                trouble=heard.trouble,
            )
            for name, heard in self._agents.get(tenant, {}).items()
            if now_ms - heard.seen_ms < FORGOTTEN_MS or name in leases
        }
        for name, count in leases.items():
            if name not in found:  # it was active before this broker started
                found[name] = AgentSummary(name=name, slots=0, leases=count, seen_ms=0)
        names = sorted(name for name in found if name > after)
        return AgentsListed(
            agents=tuple(found[name] for name in names[:PAGE_SIZE_MAX]), more=len(names) > PAGE_SIZE_MAX
        )

    def holds(self, tenant: str, job_id: str, peer: bytes) -> None:
        """Record that this connection's agent holds the tenant's job."""
        holders = self._holders.setdefault(tenant, {})
        holders.pop(job_id, None)
        holders[job_id] = peer
        while len(holders) > HOLDERS_MAX:
            del holders[next(iter(holders))]

    def settled(self, tenant: str, job_id: str) -> None:
        """Forget the holder of a job that is no longer leased."""
        self._holders.get(tenant, {}).pop(job_id, None)

    def holder(self, tenant: str, job_id: str) -> bytes | None:
        """Look up the connection of the job's holder, if it is known."""
        return self._holders.get(tenant, {}).get(job_id)
