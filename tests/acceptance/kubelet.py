"""What a cluster has beside its API server, as far as tests need it: it runs the command of each Job as a process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Final

from tests.acceptance.kubeapi import JOBS, Kube

MERGE: Final = "merge-patch+json"
INSTANT: Final = "2026-01-01T00:00:00Z"


def complete(kube: Kube, name: str, code: int) -> None:
    """Set the status of a Job whose process has exited with a code."""
    kinds = ["SuccessCriteriaMet", "Complete"] if code == 0 else ["FailureTarget", "Failed"]
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": "Ended",
            "message": f"exit code {code}",
            "lastTransitionTime": INSTANT,
        }
        for kind in kinds
    ]
    status: dict[str, Any] = {"conditions": conditions, "startTime": INSTANT}
    if code == 0:
        status["completionTime"] = INSTANT
    kube.ask("PATCH", f"{JOBS}/{name}/status", {"status": status}, MERGE)


class Kubelet:
    """Runs each Job that the API server shows, once; its log is in the folder `logs`."""

    def __init__(self, kube: Kube, logs: Path) -> None:
        self._kube = kube
        self._logs = logs
        self._threads: list[Thread] = []
        self.ran: list[str] = []
        self.over = False

    def watch(self, stream: Any) -> None:
        """Run what comes, until something comes after the end: the deletion of all Jobs."""
        for line in stream:
            event = json.loads(line)
            if self.over:
                return
            if event["type"] == "ADDED":
                self.ran.append(event["object"]["metadata"]["name"])
                self._threads.append(Thread(target=self._run, args=(event["object"],)))
                self._threads[-1].start()

    def _run(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        environ = {**os.environ, **{variable["name"]: variable["value"] for variable in container["env"]}}
        with (self._logs / f"{job['metadata']['uid']}.log").open("wb") as log:
            process = subprocess.Popen([*container["command"], *container["args"]], env=environ, stdout=log, stderr=log)
            code = process.wait()
        complete(self._kube, name, code)

    def finish(self) -> None:
        """Wait until every Job has ended that was shown."""
        for thread in self._threads:
            thread.join()
        self.over = True


@contextmanager
def running_kubelet(kube: Kube, logs: Path) -> Iterator[Kubelet]:
    """A kubelet while the block runs."""
    kubelet = Kubelet(kube, logs)
    Thread(target=kubelet.watch, args=(kube.watch(),), daemon=True).start()
    yield kubelet
    kubelet.finish()
