"""Why a job does not begin is said where the broker knows it, and nothing where it may begin at any time."""

from __future__ import annotations

import pytest

from airunner.client.cli.waiting import SILENT_MS, agents_hint
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState
from airunner.protocol.names import JobId
from airunner.protocol.replies import AgentSummary

NOW_MS = 1_000_000_000


def job(queue: str = "gpu", stdin_bytes: int | None = None, **require: str) -> Job:
    spec = JobSpec(command="true", queue=queue, require=require, stdin_bytes=stdin_bytes)
    return Job(id=JobId("j"), state=JobState.SCHEDULED, submitted_ms=NOW_MS, spec=spec)


def agent(
    *queues: str, silent_ms: int | None = 0, leases: int = 0, trouble: str = "", stdin: bool = True, **tags: str
) -> AgentSummary:
    return AgentSummary(
        name="a",
        slots=1,
        leases=leases,
        seen_ms=NOW_MS,
        silent_ms=silent_ms,
        queues=queues,
        tags=tags,
        trouble=trouble,
        stdin=stdin,
    )


@pytest.mark.parametrize(
    ("waiting", "agents", "hint"),
    [
        (job(), [], "no agent serves queue gpu; no agent is there"),
        (job(), [agent("default"), agent("b", "a")], "no agent serves queue gpu; agents serve: a, b, default"),
        (job(), [agent(*"abcdefghij")], "no agent serves queue gpu; agents serve: a, b, c, d, e, f, g, h, …"),
        (job(), [agent("default"), agent("gpu")], ""),
        (job(), [agent("gpu", leases=1, silent_ms=SILENT_MS)], ""),
        (job(), [agent("gpu", silent_ms=SILENT_MS)], "no agent serves queue gpu; no agent is there"),
        (job(), [agent("gpu", silent_ms=None)], ""),
        (job(), [agent(), agent("default")], ""),
        (job(arch="arm", os="linux"), [agent("gpu", os="linux"), agent("b", arch="arm", os="linux")],
         "no agent of queue gpu has the tags that the job requires: arch=arm os=linux"),
        (job(arch="arm"), [agent("gpu", arch="arm", os="linux")], ""),
        (job(), [agent("gpu", trouble="out of disk"), agent("b")],
         "the agents of queue gpu can run no jobs now: out of disk"),
        (job(), [agent("gpu", trouble="out of disk"), agent("gpu")], ""),
        (job(stdin_bytes=7), [agent("gpu", stdin=False), agent("b")],
         "the agents of queue gpu are too old to give a job its standard input: upgrade them"),
        (job(stdin_bytes=7), [agent("gpu", stdin=False), agent("gpu")], ""),
        (job(stdin_bytes=7), [agent("gpu", stdin=False), agent("gpu", trouble="out of disk")],
         "the agents of queue gpu can run no jobs now: out of disk"),
    ],
)  # fmt: skip
def test_a_job_that_no_agent_may_begin_says_why(waiting: Job, agents: list[AgentSummary], hint: str) -> None:
    assert agents_hint(waiting, agents) == hint
