"""What the simulated world writes into its history, and at which instant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from airunner.protocol.compression import is_compressed
from airunner.protocol.replies import (
    JobCompleted,
    JobEventsPublished,
    JobReleasedReply,
    JobsLeased,
    JobsUpdated,
    Refused,
    Reply,
)
from airunner.protocol.requests import CompleteJob, PublishJobEvents, ReleaseJob, Request, UpdateJob
from tests.simulation.history import (
    Completed,
    Granted,
    History,
    Judged,
    Leased,
    Record,
    RefusedReply,
    Released,
    Stored,
)
from tests.simulation.machine import true_s


class Recorder:
    """Adds records at the virtual instant that it is, and counts what is rare."""

    def __init__(self) -> None:
        self.history = History()
        self.rare: Counter[str] = Counter()

    @property
    def now_ms(self) -> int:
        """Virtual time since the run began."""
        return int(true_s() * 1_000)

    def add(self, record: type[Record], /, **fields: object) -> None:
        """This has happened now."""
        self.history.append(record(at_ms=self.now_ms, **fields))

    def told(self, who: Mapping[str, str | bytes], request: Request, asked_at_ms: int, reply: Reply) -> None:
        """A broker has sent this reply; `who`: the asker's machine, the broker's, and the request's id."""
        common = {**who, "asked_at_ms": asked_at_ms}

        def note(kind: type[Record], ref: Any, **fields: object) -> None:
            self.add(kind, **common, job_id=ref.job_id, attempt=ref.attempt, **fields)

        match reply, request:
            case JobsLeased(leases=leases), _:
                self.add(Leased, **common)
                for lease in leases:
                    note(Granted, lease, visibility_ms=lease.visibility_ms)
            case JobsUpdated(leases=leases), UpdateJob(visibility_ms=visibility_ms):
                for verdict in leases:
                    note(Judged, verdict, verdict=verdict.verdict, visibility_ms=visibility_ms)
            case JobEventsPublished(batches=batches, completions=completions), PublishJobEvents():
                self.rare.update("a batch was compressed" for sent in request.batches if is_compressed(sent.events))
                for batch in batches:
                    note(Stored, batch, next_index=batch.next_index, code=batch.code)
                    if batch.code == "stale-token":
                        self.rare["late events refused"] += 1
                for one, completed in zip(request.completions, completions, strict=True):
                    self.told(who, one, asked_at_ms, completed)
            case JobCompleted(state=state), CompleteJob(lease=lease):
                note(Completed, lease, state=state)
            case JobReleasedReply(), ReleaseJob(lease=lease):
                note(Released, lease)
            case Refused(code=code), _:
                kind = type(request).__name__
                self.add(RefusedReply, **common, kind=kind, code=code, job_id=getattr(request, "job_id", None))
                self.rare[f"{kind} refused with {code}"] += 1
            case _:
                pass
