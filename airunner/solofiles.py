"""Files of `airunner run`: the working tree that it runs (`--tree`), and the job that it runs again (`--job`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airunner.protocol.errors import NotFound, OperatorError

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.client.jobrecord import JobRecord
    from airunner.protocol.fields import JobSpec

Prepare = Callable[["Client", "JobSpec"], Awaitable["JobSpec"]]
"""Prepares a job before it is submitted to the broker of `airunner run`."""


@contextmanager
def recorded_job(job: str | None, *, tree: bool, config: object) -> Generator[JobRecord | None]:
    """Find the job of `--job`, in a file or at the broker, while the block runs; None: there is none.

    Raises `OperatorError`, `PeerError`.
    """
    if job is None:
        yield None
        return
    if tree or config:
        raise OperatorError("--job runs a job as it was: leave out --tree and --config")
    from tempfile import TemporaryDirectory

    from airunner.client.jobrecord import read_record

    with TemporaryDirectory(prefix="airunner-job-") as folder:
        file = Path(job)
        yield read_record(file, Path(folder)) if "/" in job or file.is_file() else _fetched(job, Path(folder))


def _fetched(job: str, folder: Path) -> JobRecord:
    """Get the record of a job from the cluster's broker."""
    import anyio

    from airunner.client.cli.jobname import NoJob, job_id_of
    from airunner.client.client import Client
    from airunner.client.jobrecord import record_of

    async def fetch() -> JobRecord:
        async with Client() as client:
            return await record_of(client, await job_id_of(client, job), folder)

    try:
        return anyio.run(fetch)
    except NotFound as error:
        raise NoJob(job) from error


def require_repeatable(past: JobRecord, spec: JobSpec, environ: Mapping[str, str]) -> None:
    """Require that no secret of a recorded job is missing here. Raises `OperatorError`, which names all of them."""
    from airunner.client.again import require_shown

    require_shown(past.job_id, spec)
    names = dict.fromkeys(spec.secret_names)
    if missing := [name for name in names if name not in spec.environment and name not in environ]:
        raise OperatorError(
            f"job {past.job_id} needs secrets that are not recorded: set {', '.join(missing)} in your environment"
        )


def preparation(past: JobRecord | None, include_ignored: Sequence[str], *, tree: bool) -> Prepare | None:
    """Return what uploads a working tree, or the recorded one, and the recorded save; None: the job has none."""
    bundle, save = (None, None) if past is None else (past.bundle, past.save)
    if not tree and bundle is None and save is None:
        return None

    async def prepare(client: Client, spec: JobSpec) -> JobSpec:
        from msgspec.structs import replace

        from airunner.client.cli.tree import with_tree

        if tree:
            return await with_tree(client, spec, include_ignored)
        if bundle is not None:
            spec = replace(spec, tree=await client.upload(bundle))
        if past is not None and past.spec.continues is not None and save is not None:
            from airunner.client.savedpieces import offer_save

            spec = replace(spec, continues=await offer_save(client, past.spec.continues, save))
        return spec

    return prepare
