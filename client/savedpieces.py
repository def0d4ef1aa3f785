"""Saved workspace of a job as a file: all pieces that its list of files names, to run the job again elsewhere.

```
 SavedWorkspace ──slices──► manifest ──slices──► blobs ──► one after the other: id, size (4 bytes), content
```
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from airunner.client.uploading import WINDOW, ask_of, put_blobs
from airunner.protocol.blobs import (
    BLOB_BYTES_MAX,
    ID_BYTES,
    IDS_MAX,
    UPLOAD_BYTES,
    Blob,
    SavedWorkspace,
    Slice,
    unpacked,
)
from airunner.protocol.errors import EXIT_WRONG_STATE, Forged, NotFound, OperatorError
from airunner.protocol.requests import GetBlob
from airunner.protocol.savemanifest import decode
from airunner.transport.ports import SYSTEM

if TYPE_CHECKING:
    from airunner.client.client import Client

_SIZE_BYTES: Final = 4
_LATER_MS: Final = 86_400_000


async def fetch_save(client: Client, saved: SavedWorkspace, file: Path) -> None:
    """Write the pieces of a save to a file. Raises `OperatorError`: the broker has lost a part; `PeerError`."""
    pieces: dict[bytes, bytes] = {}
    try:
        with file.open("wb") as written:
            async for blob in _blobs(client, saved.slices):
                pieces[blob.id] = unpacked(blob)
                _write(written, blob)
            manifest = decode(b"".join(pieces[part.blob][part.offset :][: part.length] for part in saved.slices))
            async for blob in _blobs(client, [part for entry in manifest.entries for part in entry.slices]):
                unpacked(blob)
                _write(written, blob)
    except (NotFound, Forged) as error:
        words = f"the workspace that job {saved.job_id} has saved is not whole at the broker any more"
        mend = "run that job again, and `airunner continue` it"
        raise OperatorError(f"{words} ({error.message}): {mend}", exit_code=EXIT_WRONG_STATE) from error


async def _blobs(client: Client, slices: Sequence[Slice]) -> AsyncGenerator[Blob]:
    """Get each blob of these slices once. Raises `PeerError`."""
    ids = list(dict.fromkeys(part.blob for part in slices))
    ask = ask_of(client)
    while ids:
        for blob in (await ask(GetBlob(ids=tuple(ids[:IDS_MAX])))).blobs:
            yield blob
            del ids[0]


def _write(file: BinaryIO, blob: Blob) -> None:
    file.write(blob.id + len(blob.content).to_bytes(_SIZE_BYTES) + blob.content)


def _read(file: BinaryIO) -> Iterator[Blob]:
    """Read the blobs of a file. Raises `OperatorError`: it is torn."""
    while head := file.read(ID_BYTES + _SIZE_BYTES):
        size_bytes = int.from_bytes(head[ID_BYTES:])
        content = file.read(min(size_bytes, BLOB_BYTES_MAX))
        if len(head) < ID_BYTES + _SIZE_BYTES or len(content) != size_bytes or not content:
            raise OperatorError("the saved workspace in the record of the job is damaged", exit_code=EXIT_WRONG_STATE)
        yield Blob(head[:ID_BYTES], content)


async def offer_save(client: Client, saved: SavedWorkspace, file: Path) -> SavedWorkspace:
    """Give the pieces in a file to a broker that has none of them; return what a job that begins there has.

    A job that another one continues has ended: so one is submitted for long after, and cancelled.
    """
    upload = os.urandom(UPLOAD_BYTES)
    with file.open("rb") as read:
        blobs = _read(read)
        while window := list(islice(blobs, WINDOW)):
            await put_blobs(ask_of(client), upload, window)
    origin = await client.submit(command="true", not_before_ms=SYSTEM.wall_ms() + _LATER_MS)
    await client.cancel(origin)
    return SavedWorkspace(job_id=origin.id, slices=saved.slices)
