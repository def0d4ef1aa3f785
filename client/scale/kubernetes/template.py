"""Template of the agents' Jobs: the manifest of a Job, to which the scaler adds a name and a label.

The API server checks the manifest as a whole (a dry run, when the scaler starts); this module checks what makes a Job
one agent.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from airunner.client.scale.demand import unit_name
from airunner.client.scale.kubernetes.access import FILE_BYTES_MAX
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import AGENT_NAME_VARIABLE

LABEL: Final = "airunner/scaler"
NAME_CHARS_MAX: Final = 63  # of a Job: its pods have its name as a label
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LEAVES: Final = "--disconnect-after-"  # an agent with neither of these options does not end by itself


class _Metadata(Struct, frozen=True):
    namespace: str = ""
    labels: dict[str, str] = {}


class _Container(Struct):
    command: list[str] = []
    args: list[str] = []
    env: list[dict[str, Any]] = []


class _PodSpec(Struct):
    containers: list[_Container]


class _Pod(Struct):
    spec: _PodSpec


class _JobSpec(Struct):
    template: _Pod
    parallelism: int | None = None
    completions: int | None = None


class _Manifest(Struct, rename="camel", frozen=True):
    api_version: str
    kind: str
    spec: _JobSpec
    metadata: _Metadata = _Metadata()


class Template(Struct, frozen=True):
    """Template of Jobs: a manifest that was checked, and its namespace ("": not stated)."""

    manifest: dict[str, Any]
    namespace: str
    leaves: bool  # whether the agent's command names an option that ends it by itself

    def manifest_of(self, scaler: str, name: str) -> dict[str, Any]:
        """Make the manifest of a unit, whose agent finds its name in the environment."""
        job: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self.manifest))
        metadata = job.setdefault("metadata", {})
        metadata.pop("generateName", None)
        metadata["name"] = name
        metadata.setdefault("labels", {})[LABEL] = scaler
        for container in job["spec"]["template"]["spec"]["containers"]:
            container.setdefault("env", []).append({"name": AGENT_NAME_VARIABLE, "value": name})
        return job


def check_scaler_name(name: str, agents_max: int) -> None:
    """Check the name of a scaler, with which the names of its Jobs begin. Raises `OperatorError`."""
    longest = unit_name(name, agents_max - 1)
    if not _NAME.fullmatch(name) or len(longest) > NAME_CHARS_MAX:
        raise OperatorError(
            f"{name!r} cannot begin the names of Jobs: expected lower-case letters, digits and hyphens, such that "
            f"NAME-{agents_max - 1} has up to {NAME_CHARS_MAX} characters; choose another with --name"
        )


def read_template(path: Path) -> Template:
    """Read a template. Raises `OperatorError`: it cannot be read, or is no Job that runs one agent."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Loader that leaves dates as they are written, as Kubernetes does."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise OperatorError(f"{path} has more than {FILE_BYTES_MAX} bytes")
        manifest = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
        checked = msgspec.convert(manifest, _Manifest)
    except OSError as error:
        raise OperatorError(f"--template {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise OperatorError(f"--template {path} is no manifest of a Job: {' '.join(str(error).split())}") from error
    _check(path, checked)
    words = [word for each in checked.spec.template.spec.containers for word in (*each.command, *each.args)]
    return Template(manifest, checked.metadata.namespace, any(LEAVES in word for word in words))


def _check(path: Path, job: _Manifest) -> None:
    """Check that a Job of the template runs one agent. Raises `OperatorError`."""
    containers = job.spec.template.spec.containers
    problem = ""
    if (job.api_version, job.kind) != ("batch/v1", "Job"):
        problem = f"expected kind Job of batch/v1, not {job.kind} of {job.api_version}"
    elif not containers:
        problem = "it has no containers"
    elif {job.spec.parallelism, job.spec.completions} - {None, 1}:
        problem = "a Job is one agent: leave out parallelism and completions, and set --max"
    elif any(variable.get("name") == AGENT_NAME_VARIABLE for each in containers for variable in each.env):
        problem = f"the scaler sets {AGENT_NAME_VARIABLE}: leave it out"
    if problem:
        raise OperatorError(f"--template {path}: {problem}")
