"""Views of jobs: what readers are shown of a job's row, in full, in a list, or as a change of a list. Pure.

No view shows a secret of the job's spec, or the user and password of an address.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from airunner.broker.lifecycle.leasing import ready_ms
from airunner.broker.store.rows import JobRow
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.changes import JobChange
from airunner.protocol.fields import JobSpec
from airunner.protocol.gitaddress import shown_address
from airunner.protocol.job import Job, JobState, JobSummary, JobView, Result, command_summary, decode_spec
from airunner.protocol.names import NAME_CHARS_MAX, TEXT_CHARS_MAX
from airunner.protocol.shownspec import hiding, shown_spec

_COLUMNS: Final = sorted(set(JobView.__struct_fields__) & set(JobRow.__struct_fields__))
_result_decoder = msgspec.msgpack.Decoder(Result)


def job_of(row: JobRow) -> Job:
    """Return a job in full. Raises `UNDECODABLE`."""
    spec = decode_spec(row.spec)
    view = _view(row) | _waited(row, spec)
    shown = shown_spec(spec)
    return Job(**view, spec=shown, last_sequence=row.last_sequence, agent=row.agent, retries=row.retries)


def summary_of(row: JobRow) -> JobSummary:
    """Return a job as lists show it. Raises `UNDECODABLE`."""
    return JobSummary(**_view(row), **_described(row, details=False))


def detailed_summary_of(row: JobRow) -> JobSummary:
    """Return a job as lists show it, with its metadata and the tags that it requires. Raises `UNDECODABLE`."""
    return JobSummary(**_view(row), **_described(row, details=True))


def change_of(before: JobRow | None, after: JobRow, *, whole: bool) -> JobChange:
    """Return the change of a job, with its name and command if they are `whole` and were loaded for the batch."""
    described: dict[str, Any] = {"queue": after.queue, "command": "", "priority": after.priority}
    try:
        view = _view(after)
        if whole and after.spec:
            described = _described(after, details=True)
    except UNDECODABLE:  # a damaged row: the next reader of it sets it aside
        view = _view(after, result=False)
    was = None if before is None else JobState(before.state)
    return JobChange(**view, **described, was=was, agent=after.agent or "")


def is_shown_alike(before: JobRow, after: JobRow) -> bool:
    """Check whether a list shows a job as before: events and renewals change none of this."""
    return (
        before.state == after.state
        and before.attempt == after.attempt
        and before.due_ms == after.due_ms
        and before.cancel_requested_ms == after.cancel_requested_ms
    )


def _view(row: JobRow, *, result: bool = True) -> dict[str, Any]:
    """Collect the fields that all views share."""
    view: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    view |= {"id": row.job_id, "state": JobState(row.state)}
    if row.state != JobState.SCHEDULED:
        view["due_ms"] = None  # a follow-up is due, see `dependencies`
    return view | {"result": _result_decoder.decode(row.result) if result and row.result is not None else None}


def _waited(row: JobRow, spec: JobSpec) -> dict[str, Any]:
    return {} if row.started_ms is None else {"waited_ms": max(0, row.started_ms - ready_ms(row, spec))}


def _described(row: JobRow, *, details: bool) -> dict[str, Any]:
    """Collect what a list shows of a job's spec, with its `details` if it is to have them."""
    spec = decode_spec(row.spec)
    hide = hiding(spec)
    described: dict[str, Any] = {
        "queue": spec.queue,
        "command": command_summary(spec, hide),
        "name": hide(spec.name)[:NAME_CHARS_MAX],
        "owner": hide(spec.owner)[:NAME_CHARS_MAX],
        "repository": shown_address(hide(spec.repository))[:TEXT_CHARS_MAX],
        "priority": spec.priority,
        **_waited(row, spec),
    }
    if details:
        described["metadata"] = {hide(name): hide(value) for name, value in spec.metadata.items()}
        described["require"] = dict(spec.require)
    return described
