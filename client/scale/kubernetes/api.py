"""Kubernetes API for the Jobs of one namespace: create, list, watch and delete, by HTTPS and JSON.

Five requests of one resource need no client library of Kubernetes; see docs/decisions/0048.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Container
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, Self

import httpx
import msgspec
from msgspec import Struct, field

from airunner.client.scale.cluster import ClusterAway
from airunner.client.scale.kubernetes.access import Access
from airunner.protocol.errors import OperatorError

REQUEST_S: Final = 30.0  # for each step of a request: connecting, sending, and each wait for a part of the answer
WATCH_S: Final = 240  # after which the API server ends a watch, and another begins
PAGE_JOBS: Final = 250  # on a page of a list
PAGES_MAX: Final = 100  # of one list: 25,000 Jobs with the label of one scaler
AWAY: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}  # besides all errors of the server


class Condition(Struct, kw_only=True):
    """Condition of a Job; `type` and `status` are those of the API, such as "Failed" and "True"."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Status(Struct):
    conditions: list[Condition] = []


class _Metadata(Struct, rename="camel"):
    name: str
    uid: str
    deletion_timestamp: str | None = None


class KubernetesJob(Struct):
    """Job of the API, with the fields that matter here."""

    metadata: _Metadata
    status: _Status = field(default_factory=_Status)

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type if it is true."""
        return next((found for found in self.status.conditions if found.type == kind and found.status == "True"), None)


class _ListMetadata(Struct):
    version: str = field(default="", name="resourceVersion")
    next_page: str = field(default="", name="continue")


class _JobList(Struct):
    metadata: _ListMetadata
    items: list[KubernetesJob]


class _Failure(Struct):
    message: str = ""
    reason: str = ""


class JobsApi:
    """Jobs of a namespace that have a label. Methods raise `ClusterAway`, and `OperatorError` for a refusal."""

    def __init__(self, access: Access, namespace: str, selector: str, http: httpx.AsyncClient) -> None:
        self._access = access
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._selector = selector
        self._http = http

    @classmethod
    @asynccontextmanager
    async def open(cls, access: Access, namespace: str, selector: str) -> AsyncGenerator[Self]:
        """Open connections to the API server while the block runs."""
        verify = access.ssl if access.ssl is not None else True
        async with httpx.AsyncClient(base_url=access.url, verify=verify, timeout=REQUEST_S, trust_env=False) as http:
            yield cls(access, namespace, selector, http)

    async def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> bool:
        """Create a Job; False: there is one of this name. `dry_run`: the API server only checks whether it would."""
        response = await self._send(
            "POST", json=manifest, params={"dryRun": "All"} if dry_run else {}, accepted={HTTPStatus.CONFLICT}
        )
        return response.status_code != HTTPStatus.CONFLICT

    async def delete(self, name: str, uid: str) -> None:
        """Delete a Job and its pods, unless the Job of this name has another `uid` or is gone."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        gone = {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}
        await self._send("DELETE", f"/{name}", json=options, accepted=gone)

    async def list_jobs(self) -> list[KubernetesJob]:
        """List the Jobs as they are now."""
        jobs: list[KubernetesJob] = []
        params = {"labelSelector": self._selector, "limit": str(PAGE_JOBS)}
        for _ in range(PAGES_MAX):
            page = await self._page(params)
            jobs += page.items
            if not page.metadata.next_page:
                return jobs
            params["continue"] = page.metadata.next_page
        raise OperatorError(f"more than {len(jobs)} Jobs have the label {self._selector}: delete the ended ones")

    async def _page(self, params: dict[str, str]) -> _JobList:
        response = await self._send("GET", params=params)
        try:
            return msgspec.json.decode(response.content, type=_JobList)
        except msgspec.MsgspecError as error:
            raise ClusterAway(f"{self._access.url} sent no list of Jobs: {error}") from error

    async def changes(self) -> AsyncGenerator[None]:
        """Watch the Jobs: yields when the watch is open, and at each change, until the API server ends it."""
        version = (await self._page({"labelSelector": self._selector, "limit": "1"})).metadata.version
        params = {
            "labelSelector": self._selector,
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        timeout = httpx.Timeout(REQUEST_S, read=WATCH_S + REQUEST_S)
        headers = self._access.headers()
        try:
            async with self._http.stream("GET", self._path, params=params, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise self._refusal(answer)
                yield None
                async for _ in answer.aiter_raw():
                    yield None
        except httpx.HTTPError as error:
            raise self._away(error) from error

    async def _send(
        self,
        method: str,
        path: str = "",
        *,
        accepted: Container[int] = (),
        **more: Any,  # noqa: ANN401 - httpx's own
    ) -> httpx.Response:
        """Send a request, and return its response if it succeeded or has an `accepted` status."""
        headers = self._access.headers()
        try:
            response = await self._http.request(method, self._path + path, headers=headers, **more)
        except httpx.HTTPError as error:
            raise self._away(error) from error
        if not response.is_success and response.status_code not in accepted:
            raise self._refusal(response)
        return response

    def _away(self, error: httpx.HTTPError) -> ClusterAway:
        words = " ".join(str(error).split()) or type(error).__name__
        return ClusterAway(f"{self._access.url} does not answer: {words}")

    def _refusal(self, response: httpx.Response) -> ClusterAway | OperatorError:
        """Make the error for a response that is no success."""
        message = f"{self._access.url} refuses {response.request.method} {self._path}: {_reason(response)}"
        if response.is_server_error or response.status_code in AWAY:
            return ClusterAway(message)
        return OperatorError(message)


def _reason(response: httpx.Response) -> str:
    """Word the API server's reason for a refusal."""
    try:
        failure = msgspec.json.decode(response.content, type=_Failure)
    except msgspec.MsgspecError:
        failure = _Failure()
    return " ".join(failure.message.split()) or f"status {response.status_code}"
