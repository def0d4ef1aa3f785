"""Artifacts from Python: the files that a job leaves are listed, read, and written into a folder; a part of `Client`.

```
 ARTIFACT events ──► list of files ──► their slices ──► Pieces ──► bytes, or Restorer ──► folder
```
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import anyio.to_thread
import msgspec
from msgspec import Meta
from msgspec.structs import replace

from airunner.client.artifactfiles import ArtifactFile, artifacts_of, chosen, file_at, part_of
from airunner.client.batches import Batches, BatchIterator
from airunner.client.jobref import JobRef
from airunner.client.replaying import Replaying
from airunner.protocol.blobs import PIECE_BYTES_MAX, Slice
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import CorruptLog, Forged
from airunner.protocol.printable import one_line

if TYPE_CHECKING:
    from airunner.transport.files.restoring import Part

ARTIFACT_KINDS: Final = ("ARTIFACT",)
INDEX_BYTES_MAX: Final = 16_777_216  # of a file's index: slices of some 370 GiB
INDEX_SLICES_MAX: Final = INDEX_BYTES_MAX // 37  # the shortest slice has 37 bytes
PORTION_BYTES: Final = PIECE_BYTES_MAX  # written together in a thread
PORTION_PARTS: Final = 256

_index_decoder = msgspec.msgpack.Decoder(Annotated[tuple[Slice, ...], Meta(max_length=INDEX_SLICES_MAX)])


class Artifacts(Replaying):
    """Methods of `Client` for artifacts."""

    async def artifacts(self, job: JobRef) -> list[ArtifactFile]:
        """List the files that a job has left so far, by path: those of its last attempt that has left any.

        A file is listed once all of it is stored, also while the job runs. Raises `NotFound`.

        >>> job = await client.submit(command="sh", args=["-c", "echo all is well > report.txt"], artifacts=["*.txt"])
        >>> ended = await client.wait(job)
        >>> [(file.path, file.size_bytes) for file in await client.artifacts(job)]
        [('report.txt', 12)]
        """
        return artifacts_of([event async for event in self.replay(job, kinds=ARTIFACT_KINDS)])

    def read_artifact(
        self, job: JobRef, path: str | ArtifactFile, positions: range | None = None
    ) -> BatchIterator[bytes]:
        r"""Read a file that a job has left, in pieces of up to 1 MiB, each of which is checked before it comes.

        `positions` are those of the bytes to read, such as `range(1_000, 2_000)`; by default all of them are read.

        Raises `NotFound`; `NoArtifact`, an `OperatorError`: there is no such file; `Forged`: the content is not what
        the agent has stored; `CorruptLog`: the broker has lost it.

        >>> job = await client.submit(command="sh", args=["-c", "echo all is well > report.txt"], artifacts=["*.txt"])
        >>> ended = await client.wait(job)
        >>> [piece async for piece in client.read_artifact(job, "report.txt")]
        [b'all is well\n']
        """
        return Batches(self._content(job, path, positions))

    async def _content(
        self, job: JobRef, path: str | ArtifactFile, positions: range | None
    ) -> AsyncGenerator[Sequence[bytes]]:
        file = file_at(await self.artifacts(job), path) if isinstance(path, str) else path
        if positions is not None:
            file = part_of(await self._with_slices(file) if file.index else file, positions)
        async with aclosing(self._parts([file])) as parts:
            async for part in parts:
                if part.content:
                    yield (part.content,)

    async def fetch(
        self,
        job: JobRef,
        files: Iterable[str | ArtifactFile] = (),
        folder: str | Path = ".",
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[ArtifactFile]:
        """Write files that a job has left into a folder, with their modes, links and empty folders; return them.

        `files` are patterns of paths, such as `dist/**/*.whl` or `dist` for all that is in it, or files of
        `artifacts`; by default all. A file that exists is replaced once all of the new one is there. Nothing is
        written if a path leads out of the folder, as through a link. `progress` is called with the numbers of files
        and bytes that are written so far.

        Raises `OperatorError`: a file cannot be written, or `NoArtifact`: nothing matches a pattern; and the errors of
        `read_artifact`.
        """
        from airunner.transport.files.restoring import Restorer

        given = list(files)
        wanted = [file for file in given if isinstance(file, ArtifactFile)]
        patterns = [file for file in given if isinstance(file, str)]
        if patterns or not given:
            wanted += chosen(await self.artifacts(job), patterns)
        restorer = Restorer(Path(folder))
        await anyio.to_thread.run_sync(restorer.check, wanted)
        try:
            async with aclosing(_portions(self._parts(wanted))) as portions:
                async for portion in portions:
                    await anyio.to_thread.run_sync(restorer.write, portion)
                    if progress is not None:
                        progress(restorer.files, restorer.size_bytes)
            await anyio.to_thread.run_sync(restorer.finish)
        finally:
            restorer.close()
        return wanted

    async def _parts(self, files: Sequence[ArtifactFile]) -> AsyncGenerator[Part]:
        """Yield the contents of files in order, part by part."""
        from airunner.transport.files.pieces import Pieces
        from airunner.transport.files.restoring import Part

        files = [await self._with_slices(file) if file.index else file for file in files]
        pieces = Pieces(self._entered.channel, self._entered.group, (each for file in files for each in file.slices))
        try:
            for file in files:
                size_bytes = 0
                for _ in file.slices:
                    try:
                        content = await pieces.next_content()
                    except (Forged, CorruptLog) as error:
                        raise type(error)(f"{one_line(file.path)}: {error.message}") from error
                    size_bytes += len(content)
                    yield Part(file, content, ended=False)
                if size_bytes != file.size_bytes:
                    raise Forged(f"{one_line(file.path)} has {size_bytes:,} bytes, not {file.size_bytes:,}")
                yield Part(file, b"", ended=True)
        finally:
            pieces.close()

    async def _with_slices(self, file: ArtifactFile) -> ArtifactFile:
        """Read the slices of a large file. Raises `Forged`."""
        size_bytes = sum(each.length for each in file.index)
        if size_bytes > INDEX_BYTES_MAX:
            raise Forged(f"{one_line(file.path)}: its list of pieces has {size_bytes:,} bytes")
        index = ArtifactFile(path=file.path, size_bytes=size_bytes, slices=file.index)
        async with aclosing(self._parts([index])) as parts:
            content = b"".join([part.content async for part in parts])
        try:
            return replace(file, slices=_index_decoder.decode(content), index=())
        except UNDECODABLE as error:
            raise Forged(f"{one_line(file.path)}: its list of pieces cannot be decoded") from error


async def _portions(parts: AsyncGenerator[Part]) -> AsyncGenerator[list[Part]]:
    """Collect parts that are written together."""
    portion: list[Part] = []
    size_bytes = 0
    async with aclosing(parts):
        async for part in parts:
            portion.append(part)
            size_bytes += len(part.content)
            if size_bytes >= PORTION_BYTES or len(portion) >= PORTION_PARTS:
                yield portion
                portion, size_bytes = [], 0
    yield portion
