"""Job secrets: finds the values of the secrets that a job names, and writes secret files. Pure except `write_files`.

The value comes from the first of these that has the name
- the job's own environment;
- the queue's sealed secrets, which came with the lease and are opened here;
- the variables that the agent's operator offers with `--secret`.

If a sealed value cannot be opened, the job fails: the operator's variable could have an old or a different value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from airunner.agent.workspace.jobuser import JobUser
from airunner.agent.workspace.workspace import give, write_private
from airunner.protocol.errors import Forged, OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.gitaddress import address_secrets
from airunner.protocol.redaction import HIDDEN_BYTES_MIN, SecretValues, credentials_in, secret_values

OpenBox = Callable[[str, str, bytes], bytes]
"""Opens a sealed secret's box: (queue, name, box) -> value. Raises `OperatorError`: no key; `Forged`: wrong key."""

_FOLDER_MODE: Final = 0o700


class SecretMissing(Exception):
    """Missing secret: the job names it and cannot get it; the message says why and what to do."""


class JobSecrets(Struct, frozen=True):
    """Secrets of one job by variable name: values of variables; contents of files, whose paths the variables get."""

    values: Mapping[str, str] = MappingProxyType({})
    files: Mapping[str, bytes] = MappingProxyType({})


def no_keys(queue: str, name: str, box: bytes) -> bytes:
    """Refuse to open a box: this agent has no queue keys. Raises `OperatorError`."""
    raise OperatorError(f"it has no key of queue {queue} to open {name} ({len(box)} bytes)")


def secrets_of(spec: JobSpec, offered: Mapping[str, str], sealed: Mapping[str, bytes], open_box: OpenBox) -> JobSecrets:
    """Find the secrets that a job names. Raises `SecretMissing`."""

    def value_of(name: str) -> bytes:
        if name in spec.environment:
            return spec.environment[name].encode()
        if name in sealed:
            return _opened(spec.queue, name, sealed[name], open_box)
        if name in offered:
            return offered[name].encode("utf-8", "surrogateescape")
        raise SecretMissing(
            f"the job needs the secret {name}: set it with `airunner secret set {name} --queue {spec.queue}` or "
            f"in the job's environment, or start the agent with --secret {name} and with the variable {name} set"
        )

    return JobSecrets(
        values={name: _as_variable(name, value_of(name)) for name in spec.secrets},
        files={name: value_of(name) for name in spec.secret_files},
    )


def values_to_redact(
    spec: JobSpec, secrets: JobSecrets, operators: Mapping[str, str] | None = None, patterns: Sequence[str] = ()
) -> SecretValues:
    """Find the values to redact in the log: secrets of the job and of the operator's variables, and URL's credentials.

    `operators`: the variables that the job gets from the agent's operator; `noRedact` does not count for them.
    `patterns`: further patterns of names of secrets.
    """
    in_files = {name: content.decode("utf-8", "surrogateescape") for name, content in secrets.files.items()}
    named = {**secrets.values, **in_files}
    own = secret_values({**spec.environment, **named}, named, spec.no_redact, patterns)
    others = secret_values(operators or {}, patterns=patterns)
    opens = [*address_secrets(spec.repository), *credentials_in(" ".join(spec.argv))]
    usable = [text for text in opens if len(text.encode("utf-8", "surrogateescape")) >= HIDDEN_BYTES_MIN]
    return SecretValues((*own.hidden, *others.hidden, *usable), (*own.shown, *others.shown))


def write_files(secrets: JobSecrets, folder: Path, user: JobUser | None = None) -> dict[str, str]:
    """Write secret files, owned by `user`, into a new `folder`, and return the variables with their paths.

    Raises `OSError`.
    """
    if not secrets.files:
        return {}
    folder.mkdir(_FOLDER_MODE)
    paths = {name: folder / name for name in secrets.files}
    for name, path in paths.items():
        write_private(path, secrets.files[name], user)
    if user is not None:
        give(user, folder)
    return {name: str(path) for name, path in paths.items()}


def _opened(queue: str, name: str, box: bytes, open_box: OpenBox) -> bytes:
    try:
        return open_box(queue, name, box)
    except Forged as forged:
        raise SecretMissing(
            f"this agent's key of queue {queue} does not open the secret {name}: copy the queue's key to the agent, "
            f"or set the secret again with `airunner secret set {name} --queue {queue}`"
        ) from forged
    except OperatorError as error:
        raise SecretMissing(f"this agent cannot open the secret {name} of queue {queue}: {error.message}") from error


def _as_variable(name: str, value: bytes) -> str:
    try:
        if b"\0" not in value:
            return value.decode()
    except UnicodeDecodeError:
        pass
    raise SecretMissing(f"the secret {name} is not UTF-8 or has a zero byte: name it in secretFiles (--secret-file)")
