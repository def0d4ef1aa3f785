"""Files that a job has left: a list made of the ARTIFACT events of its log, and those that patterns choose. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from airunner.protocol import events
from airunner.protocol.blobs import Slice
from airunner.protocol.errors import EXIT_NO_SUCH, OperatorError
from airunner.protocol.events import Event
from airunner.protocol.printable import one_line

CLOSE_MAX: Final = 3  # paths that are named if none matches


class ArtifactFile(Struct, frozen=True, kw_only=True):
    """File that an attempt of a job has left. A folder's `path` ends with `/`; `target` is that of a symbolic link."""

    path: str
    size_bytes: int = 0
    mode: int = 0o644
    target: str = ""
    attempt: int = 1
    slices: tuple[Slice, ...] = ()
    index: tuple[Slice, ...] = ()

    @property
    def kind(self) -> Literal["file", "folder", "link"]:
        """What it is: `file`, `folder` or `link`."""
        return "link" if self.target else "folder" if self.path.endswith("/") else "file"

    @property
    def mtime_ns(self) -> None:
        """Time of its last change, which is not kept."""

    @property
    def form(self) -> ArtifactForm:
        """What programs are shown of it: everything but its pieces."""
        return ArtifactForm(
            path=self.path,
            kind=self.kind,
            size_bytes=self.size_bytes,
            mode=f"{self.mode:04o}",
            attempt=self.attempt,
            target=self.target,
        )


class ArtifactForm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """File that a job has left, as `airunner artifacts --json` prints it: its kind, and its mode in octal digits."""

    path: str
    kind: Literal["file", "folder", "link"]
    size_bytes: int
    mode: str
    attempt: int
    target: str = ""


class NoArtifact(OperatorError):
    """No artifact error: no file of the job has this path, or matches this pattern."""

    def __init__(self, wanted: str, files: Sequence[ArtifactFile]) -> None:
        from difflib import get_close_matches

        paths = [file.path for file in files]
        close = get_close_matches(wanted, paths, CLOSE_MAX) or paths[:CLOSE_MAX]
        others = f"; it has {', '.join(map(one_line, close))}{' and more' if len(paths) > len(close) else ''}"
        super().__init__(f"the job has no file {one_line(wanted)}{others if paths else ''}", exit_code=EXIT_NO_SUCH)


def artifacts_of(log: Iterable[Event]) -> list[ArtifactFile]:
    """List the files of the last attempt that has any, by path; of events with the same path the last counts."""
    files: dict[str, ArtifactFile] = {}
    attempt = 0
    for event in log:
        body = event.body
        if not isinstance(body, events.Artifact):
            continue
        if event.attempt != attempt:
            files, attempt = {}, event.attempt
        files[body.path] = ArtifactFile(
            path=body.path,
            size_bytes=body.size_bytes,
            mode=body.mode,
            target=body.target,
            attempt=attempt,
            slices=body.slices,
            index=body.index,
        )
    return [files[path] for path in sorted(files)]


def part_of(file: ArtifactFile, positions: range) -> ArtifactFile:
    """Return a file whose content is the bytes at these positions of another, all of whose slices are known."""
    slices: list[Slice] = []
    at = 0
    for each in file.slices:
        first, end = max(positions.start - at, 0), min(positions.stop - at, each.length)
        if first < end:
            slices.append(Slice(each.blob, each.offset + first, end - first))
        at += each.length
    size_bytes = max(0, min(positions.stop, file.size_bytes) - positions.start)
    return replace(file, size_bytes=size_bytes, slices=tuple(slices), index=())


def chosen(files: Sequence[ArtifactFile], patterns: Iterable[str]) -> list[ArtifactFile]:
    """Choose the files that match any pattern, or all if there is none. Raises `NoArtifact`: nothing matches one."""
    from airunner.client.artifactpatterns import PathPattern

    found: dict[str, ArtifactFile] = {}
    patterns = list(patterns)
    for pattern in patterns:
        matches = PathPattern(pattern).matches
        matching = {file.path: file for file in files if matches(file.path)}
        if not matching:
            raise NoArtifact(pattern, files)
        found |= matching
    return [file for file in files if file.path in found] if patterns else list(files)


def file_at(files: Sequence[ArtifactFile], path: str) -> ArtifactFile:
    """Find the file of a path. Raises `NoArtifact`; `OperatorError`: it has no content."""
    for file in files:
        if file.path == path:
            if file.kind == "link":
                raise OperatorError(f"{one_line(path)} is a link to {one_line(file.target)}: name that")
            if file.kind == "file":
                return file
    if any(file.path.startswith(f"{path.rstrip('/')}/") for file in files):
        raise OperatorError(f"{one_line(path)} is a folder: name a file in it")
    raise NoArtifact(path, files)
