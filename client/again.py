"""Jobs again: what a new job takes over from one that the broker shows, whose secrets are not shown. Pure.

A job that is run again, or continued by another one, has the commit that was checked out, whatever its branch is now.
Variables with secret values are read from the environment here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from airunner.protocol import events
from airunner.protocol.blobs import Slice
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import Event
from airunner.protocol.fields import FIELDS, JobSpec
from airunner.protocol.redaction import REDACTED

KINDS: Final = ("GIT_CLONE_END", "KEPT")  # of the events of which `Past` is made
CONTINUED: Final = frozenset(
    (
        *("repository", "commit", "ref", "branch", "depth", "submodules", "dissociate", "working_directory"),
        *("environment", "secrets", "secret_files", "no_redact", "queue", "priority", "require"),
        *("caches", "keep", "keep_every_seconds"),
    )
)
"""Fields of a job that one takes over which continues it."""
REPEATED: Final = FIELDS.keys() - {
    *(
        "after",
        "not_before_ms",
        "expires",
        "artifacts",
        "artifact_required",
        "returns",
        "caches",
        "keep",
        "keep_every_seconds",
    ),
}
"""Fields of a job that is run again here, where nothing is kept of it."""


class Past(Struct):
    """Past of a job, as its log has it: the commit that was checked out last, and that of the last save; the save."""

    commit: str = ""
    kept_commit: str = ""
    kept: tuple[Slice, ...] = ()

    @classmethod
    def of(cls, log: Iterable[Event]) -> Past:
        """Find the past of a job in the events of `KINDS`."""
        past = cls()
        for event in log:
            match event.body:
                case events.GitCloneEnd(commit=commit):
                    past.commit = commit
                case events.Kept(slices=slices):
                    past.kept, past.kept_commit = slices, past.commit
                case _:
                    pass
        return past


def taken_over(spec: JobSpec, names: Iterable[str], commit: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of these names that are set, with the commit; values that are not shown are those of here."""
    fields = {name: value for name, value in asdict(spec).items() if name in names and value != FIELDS[name].default}
    if commit and spec.repository:
        fields["commit"] = commit
    if spec.environment:
        fields["environment"] = {
            name: environ.get(name, value) if REDACTED in value else value for name, value in spec.environment.items()
        }
    return fields


def require_shown(job_id: str, spec: JobSpec) -> None:
    """Require that no secret is missing in a job that was made from another. Raises `OperatorError`."""
    if missing := [name for name, value in spec.environment.items() if REDACTED in value]:
        raise OperatorError(
            f"job {job_id} has secret values that are not shown: set {', '.join(missing)} in your environment, or "
            "give them with --env"
        )
    for what, value, instead in (
        ("repository", spec.repository, "submit a new job with its address"),
        ("command", " ".join(spec.argv), "give the command after --"),
    ):
        if REDACTED in value:
            raise OperatorError(f"the {what} of job {job_id} has a secret, which is not shown: {instead}")
