"""Roster of agents: which agents were active lately, and the connection of the agent that holds each leased job.

The Gateway builds it from agents' requests; it is lost when the broker ends, and no promise depends on it. Each tenant
has a bound of its own, so its agents displace no other tenant's; the least recently active agent is removed first.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final, NamedTuple, assert_never

from msgspec import Struct

from airunner.certs.principal import QueueScope
from airunner.protocol.replies import AgentsListed, AgentSummary
from airunner.protocol.requests import PAGE_SIZE_MAX, DequeueJob, UpdateJob

AGENTS_MAX: Final = 10_000  # agents of one tenant in the roster
AGENTS_BYTES_MAX: Final = 8 * 1_048_576  # memory of one tenant's agents (`_Agent.size_bytes`), which no quota counts
AGENT_BYTES: Final = 256  # memory of an agent without tags, roughly
HOLDERS_MAX: Final = 65_536  # a tenant's jobs with a known holder; the one recorded first is forgotten, and not nudged
ACTIVE_MS: Final = 150_000  # time after its last request for which an agent counts in /metrics: two heartbeats and more
FORGOTTEN_MS: Final = 600_000  # time after its last request for which an agent is listed; an idle one sends every 15 s


class AgentState(StrEnum):
    """State of an agent in /metrics; `TROUBLED`: it can run no further jobs, whether it still runs some or not."""

    IDLE = "idle"
    BUSY = "busy"
    TROUBLED = "troubled"


class AgentCounts(NamedTuple):
    """Counts of the agents that were active lately, by state, and the sum of their slots."""

    by_state: dict[AgentState, int]
    slots: int


class _Holder(NamedTuple):
    attempt: int
    peer: bytes
    agent: str | None
    renewed_ms: int


class _Agent(Struct, frozen=True):
    slots: int
    version: str
    seen_ms: int
    tags: dict[str, str]
    trouble: str
    queues: tuple[str, ...]
    stdin: bool
    knows: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Memory that this entry takes, roughly."""
        tags = sum(len(name) + len(value) for name, value in self.tags.items())
        return AGENT_BYTES + len(self.version) + len(self.trouble) + tags + sum(map(len, self.queues + self.knows))


class Roster:
    """Roster of all tenants' agents and holders."""

    def __init__(self) -> None:
        self._agents: dict[str, dict[str, _Agent]] = {}
        self._bytes: Counter[str] = Counter()  # by tenant
        self._holders: dict[str, dict[str, _Holder]] = {}  # by tenant and job; the one recorded last is last
        self._troubled: dict[tuple[str, str], int] = {}  # by tenant and agent: when it was last active (ms)

    def record_request(self, tenant: str, request: DequeueJob | UpdateJob, now_ms: int) -> None:
        """Record the agent that sent a request: its slots, version, tags, queues and trouble (why it runs no jobs)."""
        if request.agent is None:
            return
        agents = self._agents.setdefault(tenant, {})
        last = agents.pop(request.agent, None)
        queues, stdin, knows = (last.queues, last.stdin, last.knows) if last else ((), False, ())
        if isinstance(request, DequeueJob):
            queues, stdin, knows = request.queues, request.stdin, request.knows
        match request:
            case UpdateJob(trouble=trouble):
                pass
            case DequeueJob(wait_ms=0):  # may only withdraw a parked request: does not show that the agent can run jobs
                trouble = last.trouble if last else ""
            case DequeueJob():
                trouble = ""  # an agent that waits for jobs can run them
            case _:
                assert_never(request)
        agent = _Agent(request.agent_slots, request.version, now_ms, request.tags, trouble, queues, stdin, knows)
        agents[request.agent] = agent
        self._bytes[tenant] += agent.size_bytes - (last.size_bytes if last else 0)
        self._troubled.pop((tenant, request.agent), None)
        if trouble:
            self._troubled[tenant, request.agent] = now_ms
        while len(agents) > AGENTS_MAX or self._bytes[tenant] > AGENTS_BYTES_MAX:
            oldest = next(iter(agents))
            self._bytes[tenant] -= agents.pop(oldest).size_bytes
            self._troubled.pop((tenant, oldest), None)

    def troubled(self, now_ms: int) -> int:
        """Count the agents that were active lately and reported that they can run no jobs."""
        while self._troubled:
            longest_ago = next(iter(self._troubled))
            if now_ms - self._troubled[longest_ago] < FORGOTTEN_MS:
                break
            del self._troubled[longest_ago]
        return len(self._troubled)

    def counts(self, now_ms: int) -> AgentCounts:
        """Count the agents that were active in the last `ACTIVE_MS`: those that left, or use another broker, are not.

        An agent is busy while it holds a lease that it was granted, or has renewed, in that time.
        """
        busy: set[tuple[str, str | None]] = set()
        for tenant, holders in self._holders.items():
            for holder in reversed(holders.values()):
                if now_ms - holder.renewed_ms >= ACTIVE_MS:
                    break
                busy.add((tenant, holder.agent))
        states = dict.fromkeys(AgentState, 0)
        slots = 0
        for tenant, agents in self._agents.items():
            for name, agent in reversed(agents.items()):
                if now_ms - agent.seen_ms >= ACTIVE_MS:
                    break
                working = AgentState.BUSY if (tenant, name) in busy else AgentState.IDLE
                states[AgentState.TROUBLED if agent.trouble else working] += 1
                slots += agent.slots
        return AgentCounts(states, slots)

    def page(
        self, tenant: str, after: str, leases: dict[str, int], now_ms: int, queues: QueueScope = None
    ) -> AgentsListed:
        """Make a page of the tenant's agents, by name: agents that were active lately, and all that hold `leases`.

        The reader may see `queues`, and no agent that serves none of them.
        """
        known = self._agents.get(tenant, {})
        hidden = {
            name
            for name, agent in known.items()
            if agent.queues and queues is not None and queues.isdisjoint(agent.queues)
        }
        found = {
            name: AgentSummary(
                name=name,
                slots=agent.slots,
                leases=leases.get(name, 0),
                seen_ms=agent.seen_ms,
                silent_ms=max(0, now_ms - agent.seen_ms),
                version=agent.version,
                tags=agent.tags,
                trouble=agent.trouble,
                queues=tuple(queue for queue in agent.queues if queues is None or queue in queues),
                stdin=agent.stdin,
                knows=agent.knows,
            )
            for name, agent in known.items()
            if now_ms - agent.seen_ms < FORGOTTEN_MS or name in leases
        }
        for name, count in leases.items():
            if name not in found:  # not in the roster, for example after the broker's restart
                found[name] = AgentSummary(name=name, slots=0, leases=count, seen_ms=0)
        names = sorted(name for name in found if name > after and name not in hidden)
        return AgentsListed(
            agents=tuple(found[name] for name in names[:PAGE_SIZE_MAX]), more=len(names) > PAGE_SIZE_MAX
        )

    def record_holder(
        self, tenant: str, job_id: str, attempt: int, peer: bytes, agent: str | None, now_ms: int
    ) -> None:
        """Record that the agent at this connection holds the lease of an attempt, which was granted or renewed now."""
        holders = self._holders.setdefault(tenant, {})
        holders.pop(job_id, None)
        holders[job_id] = _Holder(attempt, peer, agent, now_ms)
        while len(holders) > HOLDERS_MAX:
            del holders[next(iter(holders))]

    def forget_holder(self, tenant: str, job_id: str) -> None:
        """Forget the holder of a job that is no longer leased."""
        self._holders.get(tenant, {}).pop(job_id, None)

    def holder(self, tenant: str, job_id: str) -> bytes | None:
        """Look up the connection of the agent that holds a job's lease; None: it is not known."""
        holder = self._holders.get(tenant, {}).get(job_id)
        return None if holder is None else holder.peer

    def has_holder(self, tenant: str, job_id: str, attempt: int) -> bool:
        """Check whether the lease of this attempt has a holder, or had one that there was no room to remember."""
        holders = self._holders.get(tenant, {})
        holder = holders.get(job_id)
        return len(holders) >= HOLDERS_MAX or (holder is not None and holder.attempt == attempt)
