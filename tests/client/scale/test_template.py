"""Templates of Jobs and access to clusters: what is taken, and one line for what cannot be used."""

from __future__ import annotations

import json
import ssl
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from airunner.client.scale.kubernetes.access import Access, find_access
from airunner.client.scale.kubernetes.template import check_scaler_name, read_template
from airunner.client.scale.slurm import read_script
from airunner.protocol.errors import OperatorError

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {generateName: agent-, namespace: builds, labels: {team: ci}}
spec:
  ttlSecondsAfterFinished: 600
  template:
    metadata: {annotations: {since: 2026-01-01}}
    spec:
      restartPolicy: Never
      containers:
      - {name: agent, image: airunner, args: [agent, --disconnect-after-job], env: [{name: A, value: b}]}
      - {name: other, image: x}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "file"
    path.write_text(text)
    return path


def test_a_unit_is_the_template_with_a_name_and_a_label(tmp_path: Path) -> None:
    template = read_template(written(tmp_path, JOB))
    assert (template.namespace, template.leaves) == ("builds", True)
    job = template.manifest_of("a", "a-3")
    assert job["metadata"] == {"namespace": "builds", "labels": {"team": "ci", "airunner/scaler": "a"}, "name": "a-3"}
    agent, other = job["spec"]["template"]["spec"]["containers"]
    name = {"name": "AIRUNNER_AGENT_NAME", "value": "a-3"}
    assert (agent["env"], other["env"]) == ([{"name": "A", "value": "b"}, name], [name])
    assert job["spec"]["template"]["metadata"]["annotations"] == {"since": "2026-01-01"}
    assert template.manifest_of("a", "a-4")["metadata"]["name"] == "a-4"
    assert not read_template(written(tmp_path, JOB.replace("--disconnect-after-job", "x"))).leaves


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("kind: Job", "kind: CronJob", "expected kind Job of batch/v1, not CronJob of batch/v1"),
        ("batch/v1", "batch/v1beta1", "not Job of batch/v1beta1"),
        ("ttlSecondsAfterFinished: 600", "parallelism: 3", "leave out parallelism and completions"),
        ("ttlSecondsAfterFinished: 600", "completions: 3", "leave out parallelism and completions"),
        ("name: A,", "name: AIRUNNER_AGENT_NAME,", "the scaler sets AIRUNNER_AGENT_NAME"),
        ("      containers:", "      volumes:", "missing required field `containers`"),
        ("kind: Job", "kind: [", "is no manifest of a Job"),
        ("kind: Job", "---\nkind: Job", "is no manifest of a Job: expected a single document"),
        (JOB, "", "is no manifest of a Job"),
        (JOB, "x: " + "y" * 2**20, "has more than 1048576 bytes"),
    ],
)
def test_a_template_that_is_no_agent_is_refused_in_one_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in JOB
    with pytest.raises(OperatorError) as refused:
        read_template(written(tmp_path, JOB.replace(old, new)))
    assert problem in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("name", ["Builds", "a_b", "-a", "a.b", "a" * 62, ""])
def test_a_name_that_no_job_can_have_is_refused(name: str) -> None:
    with pytest.raises(OperatorError, match="--name"):
        check_scaler_name(name, 10)
    check_scaler_name("a" * 61, 10)


@pytest.mark.parametrize(("script", "problem"), [(None, "No such file"), ("airunner agent", "begins with #!")])
def test_a_script_that_slurm_would_refuse_is_refused(tmp_path: Path, script: str | None, problem: str) -> None:
    path = tmp_path / "none" if script is None else written(tmp_path, script)
    with pytest.raises(OperatorError, match=problem):
        read_script(path)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key, in PEM."""
    names = folder / "a.crt", folder / "a.key"
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=a",
    ]
    subprocess.run([*new, "-out", names[0], "-keyout", names[1]], check=True, capture_output=True)
    return names


def config(cluster: dict[str, object] | None = None, **user: object) -> dict[str, Any]:
    return {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://k.example:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }


def test_a_kubeconfig_file_names_the_server_and_what_authenticates(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    (tmp_path / "token").write_text("renewed\n")
    data = b64encode(certificate.read_bytes()).decode()
    inline = {"client-certificate-data": data, "client-key-data": b64encode(key.read_bytes()).decode()}
    files = {"client-certificate": certificate.name, "client-key": key.name, "tokenFile": "token"}
    inside = config(**inline, cluster={"certificate-authority-data": data})
    beside = config(**files, cluster={"certificate-authority": certificate.name})
    for written_config, headers in ((inside, {}), (beside, {"Authorization": "Bearer renewed"})):
        access = find_access(written(tmp_path, yaml.safe_dump(written_config)), {})
        assert (access.url, access.namespace, access.headers()) == ("https://k.example:6443", "default", headers)
        assert access.ssl is not None
        assert access.ssl.verify_mode is ssl.CERT_REQUIRED
    proxied = find_access(written(tmp_path, json.dumps(config(cluster={"server": "http://127.0.0.1:8001"}))), {})
    assert proxied == Access("http://127.0.0.1:8001", "default")


def test_a_pod_uses_its_service_account_whose_token_is_read_again(tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    certificate.rename(tmp_path / "ca.crt")
    (tmp_path / "namespace").write_text("builds")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = find_access(None, environ, tmp_path)
    assert (access.url, access.namespace) == ("https://[fd00::1]:443", "builds")
    for token in ("first", "second"):
        (tmp_path / "token").write_text(token)
        assert access.headers() == {"Authorization": f"Bearer {token}"}
    (tmp_path / "token").unlink()
    with pytest.raises(OperatorError, match="token cannot be read"):
        access.headers()
    usual = tmp_path / ".kube" / "config"
    usual.parent.mkdir()
    usual.write_text(json.dumps(config(cluster={"server": "http://localhost:1"})))
    assert find_access(None, {"HOME": str(tmp_path)}).url == "http://localhost:1"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "there is no Kubernetes cluster"),
        ("", "is no kubeconfig file"),
        ("a: [", "is no kubeconfig file"),
        (b"\xff", "is not text"),
        ({**config(), "current-context": "y"}, "the context 'y'"),
        ({**config(), "users": []}, "its user is missing"),
        (config(exec={"command": "aws"}), "is authenticated by another program"),
        (config(cluster={"server": "http://k.example"}), "has to be https"),
        (config(cluster={"insecure-skip-tls-verify": True}), "has to be https"),
        (config(cluster={"certificate-authority": "none"}), "authority cannot be used"),
        (config(cluster={"certificate-authority-data": "%"}), "are not PEM in base64"),
        (config(cluster={"certificate-authority-data": "eA=="}), "authority cannot be used"),
        (config(**{"client-certificate": "none", "client-key": "none"}), "client certificate or its key"),
    ],
)
def test_access_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, given: Any, problem: str) -> None:
    path = tmp_path / "config"
    if given is not None:
        path.write_bytes(given if isinstance(given, bytes) else yaml.safe_dump(given).encode() if given else b"")
    with pytest.raises(OperatorError) as refused:
        find_access(None if given is None else path, {"HOME": str(tmp_path)})
    assert problem in refused.value.message
    assert "\n" not in refused.value.message
