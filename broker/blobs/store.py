"""Blob store: blobs, and the claims of jobs to them, as objects; each tenant's apart.

```
 TENANT/blobs/ab/abcd…           a blob, as it was sent: the first two digits of its id, and the id
 TENANT/claims/JOB/REQUEST       ids that a request has claimed for a job, one after the other
 TENANT/uploads/UPLOAD/DAY/HASH  the same, for an upload, which may be repeated: the job is about to be submitted
 TENANT/sweeping/BROKER/NONCE    a sweep of this broker deletes blobs now: see `sweep`
```

A blob is needed while a job that claims it exists, or until the second midnight after an upload has claimed it. The job
that is submitted with an upload gets its claims, and so does a retry of that job. A job that continues another one gets
all claims of that, and so does its retry. A version of a cache claims blobs too: see `caches`.

`sweep` deletes the other blobs. It can run in one broker while jobs claim blobs through another: a claim is written
*before* the blobs are looked up, and the claims are read *after* the mark of the sweep was written. So a request that
does not see the mark has a claim that the sweep sees; and one that sees it is refused with `busy`, and repeated. The
mark of a broker that was killed is removed by its next sweep, or by any broker that has seen it for `DEAD_S`: a sweep
deletes nothing later than `SWEEP_S_MAX` after its mark, by a clock that counts sleep.

A tenant's name has no `=`, which stands for `/` in its folder's name.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from airunner.broker.blobs.caches import CACHE_BYTES_MAX, CacheStore, claims_in
from airunner.broker.blobs.folders import claims_of, folder_of, ids_in
from airunner.protocol.blobs import REQUEST_BYTES_MAX, Blob, blob_id, checked
from airunner.protocol.errors import Busy, NotFound
from airunner.protocol.names import JobName, RequestId

if TYPE_CHECKING:
    from airunner.broker.blobs.objects import Objects

DAY_DIGITS: Final = 6
NONCE_BYTES: Final = 8  # of a mark's name
DELETED_MAX: Final = 1_000  # blobs that a sweep deletes between two looks at the clock
NAME_DIGITS: Final = 32  # of a claim of an upload
KINDS: Final = ("uploads", "claims", "saving", "caches")  # of claims, in the order in which they are handed over
HANDED: Final = "tree-"  # begins the names of claims that came with an upload
ALONE: Final = "alone"  # in place of the id of a broker that has none
DEAD_S: Final = 600.0  # after which a mark that still stands is of a broker that was killed
SWEEP_S_MAX: Final = 300.0  # from its mark on, for which a sweep deletes; the rest is for the next one
SWEEPING_RETRY_MS: Final = 200  # after which a request may be repeated that came while a sweep deleted blobs


def _now_s() -> float:
    """Read a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class BlobStore:
    """Blob store in `objects`. Any thread may call it.

    Methods raise `Busy`: the objects cannot be reached now; `NoSpace`: there is no room for more.
    """

    def __init__(
        self, objects: Objects, cache_bytes_max: int = CACHE_BYTES_MAX, now_s: Callable[[], float] = _now_s
    ) -> None:
        self._objects = objects
        self._now_s = now_s
        self._seen_s: dict[str, float] = {}  # marks of sweeps that stood at the last look, and when each was first seen
        self.caches = CacheStore(objects, cache_bytes_max)

    def claim(self, tenant: str, job_id: JobName, request_id: RequestId, ids: Sequence[bytes]) -> tuple[int, ...]:
        """Claim blobs for a job; return the places in `ids` of those that are not stored. A repeat claims nothing more.

        Raises `Busy` also during a sweep.
        """
        return self._claim(tenant, f"claims/{job_id}/{request_id.hex()}", ids)

    def claim_upload(self, tenant: str, upload: bytes, day: int, ids: Sequence[bytes]) -> tuple[int, ...]:
        """Claim blobs for an upload, as `claim` does; `day`: since the epoch, by this broker's clock.

        The same tree is the same upload each time. So a claim is named by its ids: one object, however often.
        """
        name = blob_id(b"".join(ids)).hex()[:NAME_DIGITS]
        return self._claim(tenant, f"uploads/{upload.hex()}/{day:0{DAY_DIGITS}}/{name}", ids)

    def _claim(self, tenant: str, place: str, ids: Sequence[bytes]) -> tuple[int, ...]:
        folder = folder_of(tenant)
        self._objects.put({f"{folder}/{place}": b"".join(ids)})
        self._require_no_sweep(folder)
        return self._objects.missing([_key_of(folder, blob) for blob in ids])

    def _require_no_sweep(self, folder: str) -> None:
        """Raise `Busy` during a sweep; remove the marks of brokers that were killed."""
        now_s = self._now_s()
        seen_s = {mark: self._seen_s.get(mark, now_s) for mark in self._objects.keys(_marks_of(folder))}
        others = {mark: since_s for mark, since_s in self._seen_s.items() if not mark.startswith(f"{folder}/")}
        self._seen_s = others | seen_s
        if any(now_s - since_s < DEAD_S for since_s in seen_s.values()):
            raise Busy(retry_ms=SWEEPING_RETRY_MS)
        self._objects.delete(list(seen_s))

    def put(self, tenant: str, blobs: Sequence[Blob]) -> None:
        """Store claimed blobs. Raises `Forged`: one has other content than its id says, and nothing is stored."""
        for blob in blobs:
            checked(blob)
        folder = folder_of(tenant)
        self._objects.put({_key_of(folder, blob.id): blob.content for blob in blobs})

    def get(self, tenant: str, ids: Iterable[bytes]) -> tuple[Blob, ...]:
        """Read the first blobs, as many as fit in a reply. Raises `NotFound`: the first is not stored."""
        folder = folder_of(tenant)
        found: list[Blob] = []
        size_bytes = 0
        for blob in ids:
            content = self._objects.get(_key_of(folder, blob))
            if content is None or (found and size_bytes + len(content) > REQUEST_BYTES_MAX):
                break
            size_bytes += len(content)
            found.append(Blob(blob, content))
        if not found:
            raise NotFound("this blob is not stored")
        return tuple(found)

    def hand_over(self, tenant: str, upload: bytes, job_id: JobName) -> None:
        """Give the job that was submitted with an upload its claims; a repeat gives it the same."""
        self._copy(f"{folder_of(tenant)}/uploads/{upload.hex()}", claims_of(tenant, job_id))

    def inherit(self, tenant: str, origin: JobName, job_id: JobName) -> None:
        """Give a retry of a job the claims that came with an upload."""
        self._copy(claims_of(tenant, origin), claims_of(tenant, job_id), HANDED)

    def inherit_all(self, tenant: str, origin: JobName, job_id: JobName) -> None:
        """Give a job that continues another one the claims of that: of what it has saved, and of its tree."""
        self._copy(claims_of(tenant, origin), claims_of(tenant, job_id))

    def _copy(self, source: str, target: str, name: str = "") -> None:
        for key in self._objects.keys(source):
            last = key.rpartition("/")[2]
            ids = self._objects.get(key) if last.startswith(name) else None
            if ids is not None:
                self._objects.put({f"{target}/{HANDED}{last.removeprefix(HANDED)}": ids})

    def forget_uploads(self, tenant: str, before_day: int) -> None:
        """Forget the claims of uploads from before a day."""
        old = f"{before_day:0{DAY_DIGITS}}"
        keys = self._objects.keys(f"{folder_of(tenant)}/uploads")
        self._objects.delete([key for key in keys if key.split("/")[3] < old])

    def tenants(self) -> list[str]:
        """List the tenants that have blobs or claims."""
        return [folder.replace("=", "/") for folder in self._objects.folders()]

    def claimants(self, tenant: str) -> list[str]:
        """List the jobs that claim blobs."""
        return list(dict.fromkeys(_job_of(key) for key in self._objects.keys(f"{folder_of(tenant)}/claims")))

    def forget(self, tenant: str, job_id: str) -> None:
        """Forget the claims of a job that exists no more."""
        self._objects.delete(list(self._objects.keys(claims_of(tenant, job_id))))

    def sweep(self, tenant: str, broker: str = "") -> int:
        """Delete the blobs that no job claims; return how many. `broker` is the id of the one that does it."""
        folder = folder_of(tenant)
        claims, claimed = set[str](), set[bytes]()
        self._read_claims(folder, claims, claimed)
        candidates = [key for key in self._objects.keys(f"{folder}/blobs") if _id_of(key) not in claimed]
        own = f"{_marks_of(folder)}/{broker or ALONE}"
        self._objects.delete(list(self._objects.keys(own)))  # of a sweep in the middle of which it was killed
        if not candidates:
            return 0
        mark, began_s = f"{own}/{secrets.token_hex(NONCE_BYTES)}", self._now_s()
        self._objects.put({mark: b""})
        self._read_claims(folder, claims, claimed)
        unclaimed = [key for key in candidates if _id_of(key) not in claimed]
        deleted = 0
        for at in range(0, len(unclaimed), DELETED_MAX):
            if self._now_s() - began_s > SWEEP_S_MAX:
                break
            self._objects.delete(unclaimed[at : at + DELETED_MAX])
            deleted += len(unclaimed[at : at + DELETED_MAX])
        self._objects.delete([mark])
        return deleted

    def _read_claims(self, folder: str, seen: set[str], claimed: set[bytes]) -> None:
        """Add the ids in claims that were not `seen` before to `claimed`."""
        for kind in KINDS:
            for key in self._objects.keys(f"{folder}/{kind}"):
                if key not in seen:
                    seen.add(key)
                    content = self._objects.get(key) or b""
                    claimed.update(ids_in(claims_in(content) if kind == "caches" else content))


def _marks_of(folder: str) -> str:
    return f"{folder}/sweeping"


def _key_of(folder: str, blob: bytes) -> str:
    digits = blob.hex()
    return f"{folder}/blobs/{digits[:2]}/{digits}"


def _id_of(key: str) -> bytes:
    return bytes.fromhex(key.rpartition("/")[2])


def _job_of(key: str) -> str:
    return key.split("/")[2]
