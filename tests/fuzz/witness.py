"""The well-formed client: on one connection through the whole run, each of its requests answered, and in time.

It is of another tenant than the flood, and asks in plain `zmq` and `msgpack`: nothing asks again for it, so that a
request that is lost is found out.
"""

from __future__ import annotations

import time
from os import urandom

from tests.acceptance.running import RunningBroker
from tests.acceptance.test_plain_msgpack import Map, Plain

PAGE_SIZE = 100
LIST_EVERY = 10  # rounds
NEWCOMER_EVERY = 100


class Witness:
    """What it asked, and what has to be there at the end."""

    def __init__(self, broker: RunningBroker, token: str) -> None:
        self.answered = 0
        self.slowest_s = 0.0
        self.jobs: dict[str, str] = {}
        self._broker = broker
        self._token = token
        self._plain = Plain(broker, token)
        self._rounds = 0

    def round(self) -> None:
        """Submit a job and look at it; now and then list, or come anew by both doors."""
        name = f"{self._rounds}"
        enqueued = self._ask({"type": "EnqueueJob", "jobs": [{"command": "true", "metadata": {"round": name}}]})
        assert enqueued["type"] == "JobsEnqueued", enqueued
        (job_id,) = enqueued["job_ids"]
        assert job_id not in self.jobs, "another job's id"
        self.jobs[job_id] = name
        self._look_at(job_id)
        if self._rounds % LIST_EVERY == 0:
            listed = self._ask({"type": "ListJobs", "page_size": 1})
            assert [job["id"] for job in listed["jobs"]] == [job_id], listed
        if self._rounds % NEWCOMER_EVERY == 0:
            self.come_anew()
        self._rounds += 1

    def come_anew(self) -> None:
        """A new connection to each door is let in and served."""
        with Plain(self._broker, self._token) as newcomer:
            assert newcomer.ask({"type": "Ping"})["type"] == "Pong"
            newcomer.subscribe(self._broker.events, urandom(16))
        self.answered += 2

    def look_back(self) -> list[str]:
        """What is wrong with what the broker has of all that it acknowledged."""
        kept: set[str] = set()
        page: Map = {"more": True, "jobs": []}
        while page["more"]:
            before = {"before": page["jobs"][-1]["id"]} if page["jobs"] else {}
            page = self._ask({"type": "ListJobs", "page_size": PAGE_SIZE, **before})
            kept.update(job["id"] for job in page["jobs"])
        for job_id in self.jobs:
            self._look_at(job_id)
        lost = [f"{job_id} was acknowledged, and is not there" for job_id in self.jobs if job_id not in kept]
        return [*lost, *(f"{job_id} is there, and nobody submitted it" for job_id in kept - self.jobs.keys())]

    def close(self) -> None:
        self._plain.context.destroy(linger=0)

    def _look_at(self, job_id: str) -> None:
        job = self._ask({"type": "GetJob", "job_id": job_id})["job"]
        kept = (job["id"], job["state"], job["spec"]["metadata"])
        assert kept == (job_id, "SCHEDULED", {"round": self.jobs[job_id]}), kept

    def _ask(self, request: Map) -> Map:
        begun_s = time.monotonic()
        reply = self._plain.ask(request)
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun_s)
        self.answered += 1
        return reply
