"""Which of a job's variables hold secrets: those it names, and those whose names say so. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from airunner.agent.redactor import ENCODED_BYTES_MIN
from airunner.protocol.redaction import SECRET_NAMES, is_secret_name


def secret_values(
    environment: Mapping[str, str], named: Collection[str], patterns: Sequence[str] = SECRET_NAMES
) -> list[str]:
    """The values in `environment` that are kept out of the log.

    What the job has `named` is one whatever it is. A name alone only makes a value one that is long enough to be a
    secret: `API_KEY=true` is none, and `true` stays readable.
    """
    return [
        value
        for name, value in environment.items()
        if name in named or (is_secret_name(name, patterns) and len(value.strip().encode()) >= ENCODED_BYTES_MIN)
    ]
