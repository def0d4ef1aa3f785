"""Listings of queues, agents, brokers and secrets, and of one job in full; `columns` formats lists of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from airunner.client.cli.causes import Why
from airunner.client.cli.columns import took_text
from airunner.client.cli.notation import lines_of
from airunner.client.cli.wording import duration_text, end_text, instant_text, usage_facts
from airunner.protocol.fields import FIELDS, JobSpec
from airunner.protocol.form import Form
from airunner.protocol.job import Job, JobState
from airunner.protocol.printable import one_line
from airunner.protocol.replies import AgentSummary, BrokerSummary, QueueSummary, SecretSummary

QUEUE_HEADINGS: Final = ("QUEUE", "MODE", "WAITING", "DELAYED", "RUNNING", "OLDEST")
SECRET_HEADINGS: Final = ("SECRET", "QUEUE", "SET")
BROKER_HEADINGS: Final = ("BROKER", "ENDPOINT", "BEAT", "LEASES", "LAG", "VERSION")
AGENT_HEADINGS: Final = ("AGENT", "SLOTS", "LEASES", "SEEN", "VERSION", "QUEUES", "TAGS", "TROUBLE")
QUEUES_LEAVE: Final = ("OLDEST", "DELAYED", "MODE", "RUNNING", "WAITING")  # columns, in the order in which they go
SECRETS_LEAVE: Final = ("SET", "QUEUE")
BROKERS_LEAVE: Final = ("VERSION", "LAG", "ENDPOINT", "LEASES", "BEAT")
AGENTS_LEAVE: Final = ("TAGS", "VERSION", "QUEUES", "TROUBLE", "SEEN", "LEASES", "SLOTS")


def queue_row(queue: QueueSummary, now_ms: int) -> Sequence[str]:
    """Format the cells of a queue, in the order of `QUEUE_HEADINGS`; the last is the age of its oldest waiting job."""
    oldest = "" if queue.oldest_ms is None else duration_text(max(0, now_ms - queue.oldest_ms))
    return (queue.queue, queue.mode, str(queue.waiting), str(queue.delayed), str(queue.running), oldest)


def agent_row(agent: AgentSummary, now_ms: int) -> Sequence[str]:
    """Format the cells of an agent, in the order of `AGENT_HEADINGS`; an unknown value is a dash."""
    silent_ms = max(0, now_ms - agent.seen_ms) if agent.silent_ms is None else agent.silent_ms  # None: an older broker
    seen = f"{duration_text(silent_ms)} ago" if agent.seen_ms else "-"
    slots = str(agent.slots) if agent.slots else "-"
    tags = " ".join(f"{name}={value}" for name, value in agent.tags.items())
    queues = " ".join(agent.queues) or "-"
    return (agent.name, slots, str(agent.leases), seen, agent.version or "-", queues, tags, agent.trouble)


def broker_row(broker: BrokerSummary) -> Sequence[str]:
    """Format the cells of a broker, in the order of `BROKER_HEADINGS`; an unknown value is a dash.

    The broker that was asked has a star. LAG: how many batches of it that broker has not heard of.
    """
    beat = "dead" if broker.dead else "-" if broker.still_ms is None else f"{duration_text(broker.still_ms)} ago"
    lag = "-" if broker.missed is None or broker.dead else str(broker.missed)
    name = f"{broker.id} *" if broker.asked else broker.id
    return (name, broker.endpoint, beat, str(broker.leases), lag, broker.version or "-")


def secret_row(secret: SecretSummary, _now_ms: int) -> Sequence[str]:
    """Format the cells of a sealed secret, in the order of `SECRET_HEADINGS`."""
    return (secret.name, secret.queue, instant_text(secret.set_ms))


_WHY: Final = {
    JobState.BLOCKED: "waiting",
    JobState.SCHEDULED: "waiting",
    JobState.RUNNING: "doing",
    JobState.FAILED: "why",
    JobState.CANCELLED: "why",
    JobState.SKIPPED: "why",
}
"""How `Why.text` is called, by the job's state; of a completed job the other facts say all."""


class Left(Struct, frozen=True):
    """What a job has left at the broker, in words: empty if nothing."""

    artifacts: str = ""
    returned: str = ""
    saved: str = ""


NOTHING_LEFT: Final = Left()


def job_lines(
    job: Job, why: Why | None = None, attempts: Sequence[str] = (), left: Left = NOTHING_LEFT
) -> Iterator[str]:
    """Format a job in full, a line for each fact; `why` says why it waits or how it ended, and what comes next."""
    for name, fact in job_facts(job, why, attempts, left):
        yield f"{name + ':':<13} {one_line(fact)}"


def job_facts(
    job: Job, why: Why | None = None, attempts: Sequence[str] = (), left: Left = NOTHING_LEFT
) -> Iterator[tuple[str, str]]:
    """List the facts about a job by name, those that are known."""
    spec = job.spec
    result = job.result
    text = why.text if why is not None else ""
    facts: list[tuple[str, str]] = [
        ("id", job.id),
        ("state", end_text(job.state, result.exit_code, result.signal, result.reason) if result else job.state),
        (_WHY.get(job.state, ""), text if job.state in _WHY else ""),
        *_spec_facts(spec, pairs=False),
        ("stdin", f"{spec.stdin_bytes:,} bytes" if spec.stdin_bytes else ""),
        ("due", instant_text(job.due_ms) if job.due_ms != spec.not_before_ms else ""),
        ("retried", f"{job.retries} times" if job.retries else ""),
        ("retry of", job.origin or ""),
        ("cancel requested", instant_text(job.cancel_requested_ms)),
        *(("attempt", attempt) for attempt in attempts or ([str(job.attempt)] if job.attempt else [])),
        ("agent", job.agent or ""),
        ("submitted", instant_text(job.submitted_ms)),
        ("started", instant_text(job.started_ms)),
        ("finished", instant_text(job.finished_ms)),
        ("took", took_text(job.started_ms, job.finished_ms)),
        *usage_facts(job, why.ran_ms if why is not None else None),
        ("events", str(job.last_sequence)),
        ("files", left.artifacts),
        ("returned", left.returned),
        ("saved", left.saved),
        *_spec_facts(spec, pairs=True),
        *(("next", command) for command in (why.commands if why is not None else ())),
    ]
    for name, fact in facts:
        if fact:
            yield name, fact


def _spec_facts(spec: JobSpec, *, pairs: bool) -> Iterator[tuple[str, str]]:
    """Format the fields of a spec: with `pairs` those of the form PAIRS, which may be long; otherwise all others."""
    for field in FIELDS.values():
        if (field.form is Form.PAIRS) is pairs:
            yield from ((field.label, line) for line in lines_of(field, spec))
