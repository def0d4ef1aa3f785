"""Endings of jobs in words: why a job failed, by its result and the last words of its checkout or agent. Pure."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from airunner.client.cli.wording import duration_text, instant_text
from airunner.protocol.events import Event, GitCloneError, ProcessError
from airunner.protocol.job import Job, JobState, Reason, Result
from airunner.protocol.jobretry import SIGNAL_EXIT_BASE
from airunner.protocol.printable import one_line
from airunner.protocol.sizes import bytes_text

ERROR_KINDS: Final = ("GIT_CLONE_ERROR", "PROCESS_ERROR")  # events whose messages `why_failed` quotes
_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        124: "by convention: a time limit inside of the job",
        126: "by convention: a program could not be executed",
        127: "by convention: a program was not found",
    }
)


def signal_text(number: int) -> str:
    """Name a signal: `signal 9, SIGKILL (Killed)`."""
    try:
        return f"signal {number}, {signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:  # a real-time signal
        return f"signal {number}"


def exit_text(code: int) -> str:
    """Explain an exit code, as far as shells give it a meaning: `exit code 137: a shell's word for signal 9, …`."""
    if code in _CODES:
        return f"exit code {code}, {_CODES[code]}"
    number = code - SIGNAL_EXIT_BASE
    if number in set(signal.Signals):
        return f"exit code {code}, a shell's number for {signal_text(number)}"
    return f"exit code {code}"


def why_failed(job: Job, log: Iterable[Event] = ()) -> str:
    """Say in one line why a job has not COMPLETED; empty otherwise. `log` has its last events of `ERROR_KINDS`."""
    result = job.result
    if not job.state.terminal or job.state is JobState.COMPLETED:
        return ""
    if result is None:
        return "cancelled before it began" if job.state is JobState.CANCELLED else ""
    reason = result.reason or Reason.EXIT_CODE
    words = _WORDS.get(reason) or _FUNCTIONS.get(reason, _any)(job, result)
    said = _last_words(event for event in log if event.attempt == job.attempt)
    return one_line(f"{words}: {said}" if said and result.reason not in _SPEAKING else words)


def how_ended(job: Job) -> str:
    """Say how the command of a job ended, of whatever state."""
    return _any(job, job.result) if job.result is not None else "it has no result"


def _last_words(log: Iterable[Event]) -> str:
    """Return the last line of the last error that the checkout or the agent has reported; a git error's comes first."""
    said = ""
    for event in log:
        if isinstance(event.body, GitCloneError | ProcessError):
            lines = [line.strip() for line in event.body.message.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-1:]
            said = errors[0] if errors else said
    return said


def _any(job: Job, result: Result) -> str:
    """Explain the end of the command, by a signal or with an exit code; or else the reason by its name."""
    if result.signal is not None:
        return f"its command was ended by {signal_text(result.signal)}"
    if result.exit_code is not None and result.reason in (None, Reason.EXIT_CODE):
        return f"its command ended with {exit_text(result.exit_code)}"
    return str(result.reason or job.state)


def _timeout(job: Job, _result: Result) -> str:
    limit_s = job.spec.timeout_seconds
    return "its command ran longer than its timeout" + (f" of {duration_text(limit_s * 1_000)}" if limit_s else "")


def _out_of_memory(_job: Job, result: Result) -> str:
    peak = result.usage.memory_peak_bytes if result.usage is not None else 0
    largest = f"; the largest had {bytes_text(peak)}" if peak else ""
    return f"the kernel killed one of its processes for lack of memory{largest}"


def _agent_lost(job: Job, _result: Result) -> str:
    named = f", {job.agent}," if job.agent else ""
    if job.spec.max_attempts == 1:
        return f"its agent{named} was lost while it ran"
    return f"{job.spec.max_attempts} agents were lost while it ran" + (
        f", the last of them {job.agent}" if named else ""
    )


def _cancelled(job: Job, _result: Result) -> str:
    at = f" at {instant_text(job.cancel_requested_ms)}" if job.cancel_requested_ms is not None else ""
    return f"cancelled{at}"


_FUNCTIONS: Final[Mapping[Reason, Callable[[Job, Result], str]]] = MappingProxyType(
    {
        Reason.TIMEOUT: _timeout,
        Reason.OUT_OF_MEMORY: _out_of_memory,
        Reason.AGENT_LOST: _agent_lost,
        Reason.CANCELLED: _cancelled,
    }
)
_WORDS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.CHECKOUT_FAILED: "the checkout failed",
        Reason.COMMAND_NOT_FOUND: "its command could not be started",
        Reason.NOT_EXECUTABLE: "its command could not be started",
        Reason.NO_WORKING_DIRECTORY: "its command could not be started",
        Reason.PROCESS_ERROR: "its agent could not run it",
        Reason.HOOK_FAILED: "a hook of its agent failed",
        Reason.SECRET_MISSING: "a secret that it names is missing",
        Reason.ARTIFACT_MISSING: "files that it was to leave are missing",
        Reason.EXPIRED: "no agent began it before it expired",
        Reason.SKIPPED: "a job that it waited for did not end as required",
    }
)
_SPEAKING: Final = (
    None,
    Reason.EXIT_CODE,
    Reason.SIGNAL,
    Reason.TIMEOUT,
    Reason.CANCELLED,
    Reason.EXPIRED,
    Reason.SKIPPED,
)
"""Reasons that need no message of the log."""
