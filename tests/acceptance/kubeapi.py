"""Kubernetes API servers for tests: a real kube-apiserver with etcd, or one of our own that answers as it does.

The own one knows Jobs alone. It answers as kube-apiserver 1.34 does to the same requests, which the same tests hold:
names are unique, a watch goes on from a list, and a deletion is refused for another uid.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from kubeapiserver import CACHED

from tests.acceptance.running import stop
from tests.ports import free_ports

NAMESPACE: Final = "default"
JOBS: Final = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
TOKEN: Final = "a-token-of-the-cluster"
READY_S_MAX: Final = 60
ENDING: Final = ("setpriv", "--pdeathsig", "KILL")  # however the tests end, what they have started ends too


class Kube:
    """A running API server at `url`; `authority` is the certificate that it is trusted by, if it speaks TLS."""

    def __init__(self, url: str, authority: Path | None = None) -> None:
        self.url = url
        self.authority = authority
        self._context = None if authority is None else ssl.create_default_context(cafile=authority)

    def open(self, method: str, path: str, body: object = None, kind: str = "json") -> Any:
        """The response to a request, which has to succeed."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": f"application/{kind}"}
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, sent, headers, method=method)
        return urllib.request.urlopen(request, context=self._context, timeout=READY_S_MAX)

    def ask(self, method: str, path: str, body: object = None, kind: str = "json") -> Any:
        """The answer to a request."""
        with self.open(method, path, body, kind) as response:
            return json.load(response)

    def watch(self) -> Any:
        """The events of Jobs from now on, one a line."""
        version = self.ask("GET", JOBS)["metadata"]["resourceVersion"]
        return self.open("GET", f"{JOBS}?watch=true&resourceVersion={version}")

    def jobs(self) -> list[str]:
        """The names of all Jobs."""
        return sorted(job["metadata"]["name"] for job in self.ask("GET", JOBS)["items"])

    def clear(self) -> None:
        """Delete all Jobs."""
        for name in self.jobs():
            self.ask("DELETE", f"{JOBS}/{name}", {"propagationPolicy": "Background"})

    def account_token(self, documents: list[dict[str, Any]]) -> str:
        """Make the service account of manifests, with its rights, and return a token as its pods get it."""
        if self.authority is None:
            return TOKEN  # the own server knows no rights
        place = f"namespaces/{NAMESPACE}"
        paths = {"ServiceAccount": f"/api/v1/{place}/serviceaccounts"}
        paths |= {
            kind: f"/apis/rbac.authorization.k8s.io/v1/{place}/{kind.lower()}s" for kind in ("Role", "RoleBinding")
        }
        for document in documents:
            if document["kind"] in paths:
                self.ask("POST", paths[document["kind"]], document)
        (account,) = [each["metadata"]["name"] for each in documents if each["kind"] == "ServiceAccount"]
        issued = self.ask("POST", f"{paths['ServiceAccount']}/{account}/token", {"spec": {}})
        return str(issued["status"]["token"])

    def kubeconfig(self, path: Path, url: str = "", token: str = TOKEN) -> Path:
        """Write a kubeconfig file for this server, or for `url` in front of it."""
        cluster = {"server": url or self.url}
        if self.authority is not None and not url:
            cluster["certificate-authority"] = str(self.authority)
        config = {
            "current-context": "tests",
            "contexts": [{"name": "tests", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        path.write_text(json.dumps(config))
        return path


def apiserver() -> str | None:
    """Find a kube-apiserver; None: there is none here, or no etcd."""
    found = os.environ.get("AIRUNNER_KUBE_APISERVER") or shutil.which("kube-apiserver")
    found = found or (str(CACHED) if CACHED.is_file() else None)
    return found if shutil.which("etcd") else None


@contextmanager
def real(folder: Path) -> Iterator[Kube]:
    """A kube-apiserver with etcd while the block runs."""
    program = apiserver()
    assert program is not None
    etcd, peers, port = free_ports()
    (folder / "tokens.csv").write_text(f'{TOKEN},tests,1,"system:masters"\n')
    subprocess.run(["openssl", "genrsa", "-out", folder / "sa.key", "2048"], check=True, stderr=subprocess.DEVNULL)
    urls = [f"--{kind}-client-urls=http://127.0.0.1:{etcd}" for kind in ("listen", "advertise")]
    keys = ["--service-account-key-file", folder / "sa.key", "--service-account-signing-key-file", folder / "sa.key"]
    commands = (
        ["etcd", "--data-dir", folder / "etcd", *urls, f"--listen-peer-urls=http://127.0.0.1:{peers}"],
        [program, f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1", f"--secure-port={port}",
         "--cert-dir", folder / "certs", "--token-auth-file", folder / "tokens.csv", "--authorization-mode=RBAC",
         *keys, "--service-account-issuer=https://kubernetes.default.svc", "--endpoint-reconciler-type=none",
         "--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount"],
    )  # fmt: skip
    with ExitStack() as processes:
        for command in commands:
            log = processes.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
            process = processes.enter_context(subprocess.Popen([*ENDING, *command], stdout=log, stderr=log))
            processes.callback(stop, process)
            _wait_for(etcd if command[0] == "etcd" else port, process)
        kube = Kube(f"https://127.0.0.1:{port}", folder / "certs" / "apiserver.crt")
        # It answers before all of it has begun; this request waits for the namespace.
        with kube.open("GET", f"/api/v1/namespaces?watch=true&fieldSelector=metadata.name={NAMESPACE}") as namespaces:
            next(iter(namespaces))
        yield kube


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process takes connections; the kernel has no event for that."""
    for _ in range(READY_S_MAX * 20):
        assert process.poll() is None, f"{process.args} has ended"
        with closing(socket.socket()) as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        process_wait(process)
    raise AssertionError(f"{process.args} takes no connections")


def process_wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.05)
    except subprocess.TimeoutExpired:
        return


class _Fake(ThreadingHTTPServer):
    """Jobs in memory, each a dictionary as the API has it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.found: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self.changed = Condition()
        self.versions = count(1)
        self.over = False

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are gone."""
        assert isinstance(sys.exception(), ConnectionError), "the API server of the tests has failed"

    def note(self, kind: str, job: dict[str, Any]) -> None:
        job["metadata"]["resourceVersion"] = str(next(self.versions))
        self.events.append({"type": kind, "object": json.loads(json.dumps(job))})
        self.changed.notify_all()


class _Answers(BaseHTTPRequestHandler):
    server: _Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def parse_request(self) -> bool:
        """Parse a request, and refuse it here if its token is another."""
        if not super().parse_request():
            return False
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            return True
        self._body()
        self._refuse(401, "Unauthorized", "Unauthorized")
        return False

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        sent = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def _refuse(self, status: int, reason: str, message: str) -> None:
        self._answer(
            {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": status}, status
        )

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        return body

    def _matches(self, job: dict[str, Any], query: dict[str, list[str]]) -> bool:
        label, _, value = query.get("labelSelector", [""])[0].partition("=")
        return not label or job["metadata"].get("labels", {}).get(label) == value

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        with self.server.changed:
            seen = len(self.server.events)
            if "watch" not in query:
                jobs = [job for job in self.server.found.values() if self._matches(job, query)]
                self._answer({"kind": "JobList", "metadata": {"resourceVersion": str(seen)}, "items": jobs})
                return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = int(query["resourceVersion"][0])
        while True:
            with self.server.changed:
                while len(self.server.events) == seen and not self.server.over:
                    self.server.changed.wait()
                new = [event for event in self.server.events[seen:] if self._matches(event["object"], query)]
                seen = len(self.server.events)
                if self.server.over:
                    self.close_connection = True
                    return
            for event in new:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))

    def do_POST(self) -> None:
        job = self._body()
        name = job["metadata"]["name"]
        if job["spec"]["template"]["spec"].get("restartPolicy") not in {"Never", "OnFailure"}:
            message = f'Job.batch "{name}" is invalid: spec.template.spec.restartPolicy: Required value'
            self._refuse(422, "Invalid", message)
            return
        with self.server.changed:
            if name in self.server.found:
                self._refuse(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
                return
            job["metadata"]["uid"] = f"uid-{next(self.server.versions)}"
            if "dryRun" not in parse_qs(urlsplit(self.path).query):
                self.server.found[name] = job
                self.server.note("ADDED", job)
        self._answer(job, 201)

    def do_DELETE(self) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        uid = self._body().get("preconditions", {}).get("uid")
        with self.server.changed:
            job = self.server.found.get(name)
            if job is None:
                self._refuse(404, "NotFound", f'jobs.batch "{name}" not found')
            elif uid not in {None, job["metadata"]["uid"]}:
                self._refuse(409, "Conflict", f"the UID in the precondition ({uid}) does not match the UID in record")
            else:
                self.server.note("DELETED", self.server.found.pop(name))
                self._answer({"kind": "Status", "status": "Success"})

    def do_PATCH(self) -> None:
        name = urlsplit(self.path).path.split("/")[-2]
        with self.server.changed:
            job = self.server.found[name]
            job["status"] = self._body()["status"]
            self.server.note("MODIFIED", job)
        self._answer(job)


@contextmanager
def fake() -> Iterator[Kube]:
    """Our own API server while the block runs."""
    server = _Fake()
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Kube(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        with server.changed:
            server.over = True
            server.changed.notify_all()
        server.shutdown()
        thread.join()
        server.server_close()
