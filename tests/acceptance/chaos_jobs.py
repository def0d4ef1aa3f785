"""The jobs of a chaos run: what each is to write and how it is to exit follows from its name."""

from __future__ import annotations

import random
from typing import Final

from airunner import JobSpec, ProcessType

EXITS: Final = (0, 0, 0, 7)
LINES: Final = (  # how many, and what is done after each
    (1, ":"),
    (10, ":"),
    (4_000, ":"),  # more than one batch of events
    (10, "sleep 0.1"),
    (30, "sleep 0.1"),
    (8, "sleep 0.6"),
    (16, "sleep 0.5"),  # longer than a lease that is not renewed
)
CHILDREN: Final = (
    ":",
    ":",
    "setsid sleep 300 & :",
    "(sleep 300 &) ; nohup sleep 300 2>&- & :",
)  # to be ended with the job
_SCRIPT = (
    "{children}; i=0; while [ $i -lt {lines} ]; do echo $AIRUNNER_JOB_ID $i; i=$((i+1)); {between}; done; exit {code}"
)


def job_spec(seed: str, request: str) -> JobSpec:
    """The job that is submitted under this name."""
    drawn = random.Random(f"{seed}-{request}")
    lines, between = drawn.choice(LINES)
    code = drawn.choice(EXITS)
    script = _SCRIPT.format(lines=lines, between=between, code=code, children=drawn.choice(CHILDREN))
    return JobSpec(
        command="sh",
        args=("-c", script),
        process_type=drawn.choice([ProcessType.PIPE, ProcessType.PIPE, ProcessType.PTY]),
        metadata={"request": request, "lines": str(lines), "code": str(code)},
    )


def expected_code(spec: JobSpec) -> int:
    """What its command exits with."""
    return int(spec.metadata["code"])


def expected_output(job_id: str, spec: JobSpec) -> bytes:
    """What an attempt of it that comes to its end writes to its stdout."""
    end = "\r\n" if spec.process_type is ProcessType.PTY else "\n"
    return "".join(f"{job_id} {line}{end}" for line in range(int(spec.metadata["lines"]))).encode()
