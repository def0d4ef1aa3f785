"""Causes why a job waits: what the broker says of its queue and agents, turned into a line and a command. Pure.

The first cause in this order is the one that is said; each hides those after it, which only matter once it is gone:

```
 other jobs first ─► not due, or the pause before a retry ─► queue paused ─► no agent serves the queue
   ─► none has the tags ─► agents too old ─► agents in trouble ─► all slots busy ─► its turn: it may start at any moment
```

No clock of this machine decides anything: whether a job is due is the broker's word, and so is an agent's silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from airunner.client.cli.columns import ID_CHARS_MIN
from airunner.client.cli.wording import duration_text, instant_text
from airunner.protocol.job import Job, JobState, JobSummary
from airunner.protocol.musts import musts_of
from airunner.protocol.printable import shell_line
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary

SILENT_MS: Final = 150_000  # since an agent's last request: an idle agent sends one every 30 s, a busy one every minute
NAMES_SHOWN: Final = 8  # queues or owners in one line
AHEAD_NAMED: Final = 3  # jobs ahead that are named
SOON_MS: Final = 1_000
ENDED_MIN: Final = 3  # jobs of which an estimate can be made
OTHER_BROKERS: Final = "; agents that use another broker are not listed by this one"


class Cause(StrEnum):
    """Cause why a job waits; or its phase, if it runs or has ended."""

    BLOCKED = "blocked"
    NOT_DUE = "not-due"
    RETRY_PAUSE = "retry-pause"
    QUEUE_PAUSED = "queue-paused"
    NO_AGENT = "no-agent"
    TAGS_MISSING = "tags-missing"
    AGENTS_TOO_OLD = "agents-too-old"
    AGENTS_IN_TROUBLE = "agents-in-trouble"
    SLOTS_BUSY = "slots-busy"
    TURN = "turn"
    UNKNOWN = "unknown"
    STARTING = "starting"
    CHECKOUT = "checkout"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"


_BLOCKING: Final = (
    Cause.QUEUE_PAUSED,
    Cause.NO_AGENT,
    Cause.TAGS_MISSING,
    Cause.AGENTS_TOO_OLD,
    Cause.AGENTS_IN_TROUBLE,
)
_SHORT: Final = {
    Cause.QUEUE_PAUSED: "paused",
    Cause.NO_AGENT: "no agent serves the queue",
    Cause.TAGS_MISSING: "no agent has its tags",
    Cause.AGENTS_TOO_OLD: "agents too old",
    Cause.AGENTS_IN_TROUBLE: "agents in trouble",
}
OF_AGENTS: Final = (*_BLOCKING[1:], Cause.SLOTS_BUSY)


class Why(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a job waits, or what it does: a line of text, and commands that help."""

    cause: Cause
    text: str
    commands: tuple[str, ...] = ()
    agent: str = ""  # that runs it; or the nearest one, which lacks tags
    ahead: int | None = None  # jobs that are leased before it by the agents that may run it
    estimate_ms: int | None = None  # until it starts, if jobs take as long as the queue's last ones did
    since_ms: int | None = None  # by the broker's clock
    until_ms: int | None = None  # by the broker's clock
    ran_ms: int | None = None  # how long the command of the last attempt ran, if it has ended
    last_output: str = ""

    @property
    def blocked(self) -> bool:
        """Whether the job does not start until its operator acts."""
        return self.cause in _BLOCKING


class Waits(Struct, frozen=True):
    """Waiting job, as far as the causes depend on it; `retry`: which one it waits for, 0 if it is not known which."""

    id: str
    queue: str
    require: Mapping[str, str]
    priority: int
    due_ms: int | None
    retry: int | None
    stdin: bool
    musts: tuple[str, ...] = ()  # fields that its agent must know


def waits_of(job: Job | JobSummary) -> Waits:
    """Collect what causes depend on, of a job in full or in a list with details."""
    due_ms = job.due_ms
    if isinstance(job, JobSummary):
        retry = 0 if due_ms is not None and job.attempt else None
        return Waits(job.id, job.queue, job.require, job.priority, due_ms, retry, stdin=False)
    spec = job.spec
    retry = job.retries if job.retries and due_ms != spec.not_before_ms else None
    stdin = bool(spec.stdin_bytes)
    return Waits(job.id, spec.queue, spec.require, spec.priority, due_ms, retry, stdin, musts_of(spec))


class Seen(Struct, frozen=True, kw_only=True):
    """What the broker says that bears on a waiting job; `now_ms` is this machine's clock, which is only shown."""

    now_ms: int
    queue: QueueSummary | None = None
    agents: Sequence[AgentSummary] = ()
    ahead: Sequence[JobSummary] | None = None  # jobs of its queue before it, the next one first; None: not known
    running: Sequence[JobSummary] = ()  # some of the tenant's running jobs
    ended: Sequence[JobSummary] = ()  # jobs of the queue that were completed last
    other_brokers: bool = False  # whether agents may use brokers that list them elsewhere


def why_waiting(waiting: Job | JobSummary, seen: Seen) -> Why:
    """Find the cause why a waiting job is not leased."""
    if waiting.state is JobState.BLOCKED:
        return Why(cause=Cause.BLOCKED, text=_unmet_text(waiting.unmet))
    job = waits_of(waiting)
    why = _not_due(job, seen.now_ms) or _paused(job, seen.queue) or _agents(job, seen)
    if seen.other_brokers and why.cause in OF_AGENTS:
        why = replace(why, text=f"{why.text}{OTHER_BROKERS}")
    if seen.queue is not None and seen.queue.mode is QueueMode.DRAINING:
        why = replace(why, text=f"{why.text}; the queue is draining, and still runs the jobs that it has")
    return why


def _unmet_text(unmet: int) -> str:
    return f"{_count(unmet, 'job')} first"


def _not_due(job: Waits, now_ms: int) -> Why | None:
    if job.due_ms is None:
        return None
    why = "it starts"
    if job.retry is not None:
        why = f"it failed, and {f'retry {job.retry}' if job.retry else 'its retry'} starts"
    return Why(
        cause=Cause.NOT_DUE if job.retry is None else Cause.RETRY_PAUSE,
        text=f"{why} at {instant_text(job.due_ms)} at the earliest, in {duration_text(job.due_ms - now_ms)}",
        commands=(f"airunner wait {job.id}",),
        until_ms=job.due_ms,
    )


def _paused(job: Waits, queue: QueueSummary | None) -> Why | None:
    if queue is None or queue.mode is not QueueMode.PAUSED:
        return None
    resume = shell_line(("airunner", "resume", job.queue))
    return Why(cause=Cause.QUEUE_PAUSED, text=f"queue {job.queue} is paused, until `{resume}`", commands=(resume,))


def _agents(job: Waits, seen: Seen) -> Why:
    """Find the cause among the agents: none serves the queue, none is able to run the job, or all are busy."""
    queue, needs = job.queue, job.require
    there = [agent for agent in seen.agents if agent.leases or (agent.silent_ms or 0) < SILENT_MS]
    if not all(agent.queues for agent in there):  # an older broker, or one that has just started
        text = "the broker does not know yet which queues its agents serve"
        return Why(cause=Cause.UNKNOWN, text=text, commands=("airunner agents",))
    serving = [agent for agent in there if queue in agent.queues]
    tags = [word for name, value in needs.items() for word in ("--tag", f"{name}={value}")]
    start = shell_line(("airunner", "agent", "--queue", queue, *tags))
    if not serving:
        others = sorted({name for agent in there for name in agent.queues})
        served = f"agents serve: {_names(others)}" if others else "no agent is there"
        return Why(cause=Cause.NO_AGENT, text=f"no agent serves queue {queue}; {served}", commands=(start,))
    suited = [agent for agent in serving if _has_tags(agent, needs)]
    if not suited:
        return _lacking(job, serving, start)
    able = [agent for agent in suited if (agent.stdin or not job.stdin) and set(job.musts) <= set(agent.knows)]
    if not able:
        with_stdin = any(agent.stdin for agent in suited) or not job.stdin
        lack = f"to know a job's {' and '.join(job.musts)}" if with_stdin else "to give a job its standard input"
        text = f"the agents of queue {queue} are too old {lack}: upgrade them"
        return Why(cause=Cause.AGENTS_TOO_OLD, text=text, commands=("airunner agents",))
    sound = [agent for agent in able if not agent.trouble]
    if not sound:
        text = f"the agents of queue {queue} can run no jobs now: {able[0].trouble}"
        return Why(cause=Cause.AGENTS_IN_TROUBLE, text=text, commands=("airunner agents", start), agent=able[0].name)
    return _turn(sound, seen, start)


def _has_tags(agent: AgentSummary, needs: Mapping[str, str]) -> bool:
    return needs.items() <= agent.tags.items()


def _lacking(job: Waits, serving: Sequence[AgentSummary], start: str) -> Why:
    """Name the agent that has most of the required tags, and what it lacks."""
    needs = job.require
    nearest = min(serving, key=lambda agent: len(needs.items() - agent.tags.items()))
    lacks = " ".join(f"{name}={value}" for name, value in needs.items() if nearest.tags.get(name) != value)
    wanted = " ".join(f"{name}={value}" for name, value in needs.items())
    near = f"; the nearest, {nearest.name}, lacks {lacks}" if lacks != wanted or len(serving) > 1 else ""
    text = f"no agent of queue {job.queue} has the tags that the job requires: {wanted}{near}"
    return Why(cause=Cause.TAGS_MISSING, text=text, commands=(start,), agent=nearest.name)


def _turn(sound: Sequence[AgentSummary], seen: Seen, start: str) -> Why:
    """Say which jobs are ahead, which have the slots of the agents that may run this one, and about how long still."""
    place, ahead = "", None
    if seen.ahead is not None:
        rivals = [job for job in seen.ahead if any(_has_tags(agent, job.require) for agent in sound)]
        ahead = len(rivals)
        named = _names([job.name or job.id[:ID_CHARS_MIN] for job in rivals[: AHEAD_NAMED + 1]], AHEAD_NAMED)
        are = "is" if ahead == 1 else "are"
        place = f"{_count(ahead, 'job')} {are} ahead ({named}); " if ahead else "it is next; "
    free = [agent.name for agent in sound if agent.leases < agent.slots]
    if free:
        text = f"{place}{_names(free)} may start it at any moment"
        return Why(cause=Cause.TURN, text=text, agent=free[0], ahead=ahead)
    queues = {queue for agent in sound for queue in agent.queues}
    running = [job for job in seen.running if job.queue in queues]
    slots = sum(agent.slots for agent in sound)
    of = sound[0].name if len(sound) == 1 else f"{len(sound)} agents"
    busy = f"the only slot of {of} is busy" if slots == 1 else f"all {slots:,} slots of {of} are busy"
    since = [job.started_ms for job in running if job.started_ms is not None]
    longest = f", the longest for {duration_text(seen.now_ms - min(since))}" if since else ""
    text = f"{place}{busy}{_holders(running)}{longest}"
    estimate_ms = None
    if ahead is not None and len(seen.ended) >= ENDED_MIN:
        took_ms = sorted((job.finished_ms or 0) - (job.started_ms or 0) for job in seen.ended)[len(seen.ended) // 2]
        estimate_ms = _estimate_ms(took_ms, [seen.now_ms - ms for ms in since], slots, ahead)
        took = f"the queue's last {len(seen.ended)} jobs took {duration_text(took_ms)}"
        late = f"{took}, and those that run take longer"
        text += f"; {late if estimate_ms is None else f'{_about(estimate_ms)}, as {took}'}"
    return Why(
        cause=Cause.SLOTS_BUSY,
        text=text,
        commands=(start,),
        ahead=ahead,
        since_ms=min(since, default=None),
        estimate_ms=estimate_ms,
    )


def _estimate_ms(took_ms: int, elapsed_ms: Sequence[int], slots: int, ahead: int) -> int | None:
    """Estimate when a slot is free for a job with `ahead` jobs before it, if each job takes `took_ms`.

    The longest are taken to end first; of a slot whose job is not known, nothing has elapsed. A slot whose job has run
    longer than that may be busy for any time; None: all are.
    """
    known = sorted(elapsed_ms, reverse=True)[:slots]
    free = sorted(took_ms - ms for ms in [*known, *[0] * (slots - len(known))] if ms <= took_ms)
    return free[ahead % len(free)] + ahead // len(free) * took_ms if free else None


def _about(ms: int) -> str:
    return f"it may start in about {duration_text(ms)}" if ms >= SOON_MS else "it may start soon"


def _holders(running: Sequence[JobSummary]) -> str:
    """Name the owners of running jobs, those with the most first; or else their queues."""
    owners = Counter(job.owner for job in running if job.owner)
    named = owners or Counter(f"queue {job.queue}" for job in running)
    return f" with jobs of {_names([f'{name} ({count})' for name, count in named.most_common()])}" if named else ""


def _names(names: Sequence[str], shown: int = NAMES_SHOWN) -> str:
    dots = ", …" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{dots}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ahead_of(job: Job | JobSummary, waiting: Iterable[JobSummary]) -> list[JobSummary]:
    """List the jobs ahead of one, the next one first; `waiting` are those of its queue, newest first."""
    mine, older = waits_of(job).priority, False
    ahead: list[JobSummary] = []
    for other in waiting:
        older |= other.id == job.id
        first = other.priority > mine or (older and other.priority == mine)
        if first and other.id != job.id and other.due_ms is None:
            ahead.append(other)
    ahead.reverse()
    return sorted(ahead, key=lambda other: -other.priority)


def short_text(why: Why, now_ms: int) -> str:
    """Format a cause for a column: `paused`, `no agent serves the queue`, `2 ahead`; empty if it is not known."""
    ahead = "" if why.ahead is None else f"{why.ahead:,} ahead" if why.ahead else "next"
    match why.cause:
        case Cause.NOT_DUE | Cause.RETRY_PAUSE if why.until_ms is not None:
            day = instant_text(why.until_ms)
            instant = day[11:16] if day[:10] == instant_text(now_ms)[:10] else day[:16].replace("T", " ")
            return f"{'not due' if why.cause is Cause.NOT_DUE else 'no retry'} until {instant} UTC"
        case Cause.SLOTS_BUSY:
            return f"{ahead}, slots busy" if ahead else "slots busy"
        case Cause.TURN:
            return ahead
        case Cause.BLOCKED:
            return why.text
        case cause:
            return _SHORT.get(cause, "")
