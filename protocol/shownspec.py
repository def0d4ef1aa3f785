"""Shown spec: a job's spec without its secrets, for everybody but the agent that runs the job. Pure.

The values that are removed are those in the job's environment: of the variables that the job names in `secrets`, of
those with secret names, and the credentials in URLs. They are removed wherever else in the spec they stand, such as
`curl -H "Bearer …"`. Values of sealed secrets and of the agent's are known to the agent alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from airunner.protocol.fields import JobSpec
from airunner.protocol.gitaddress import shown_address
from airunner.protocol.names import ARGUMENT_CHARS_MAX, NAME_CHARS_MAX, TEXT_CHARS_MAX
from airunner.protocol.redaction import REDACTED, is_secret_name, secret_values, shown_forms, without_credentials

VALUES_CHARS_MAX: Final = 8_192  # of all secret values together, such as two keys of 4096 bits
FORMS_MAX: Final = 256  # with these bounds, a job is searched for its secrets in at most some 5 ms


def hiding(spec: JobSpec) -> Callable[[str], str]:
    """Return the function that removes the spec's secrets from a text; if there are too many, all of the text."""
    values = secret_values(spec.environment, spec.secret_names, spec.no_redact).hidden
    if not values:
        return without_credentials
    forms = shown_forms(values) if len(values) <= FORMS_MAX and sum(map(len, values)) <= VALUES_CHARS_MAX else []

    def hide(text: str) -> str:
        text = without_credentials(text)
        for form in forms:
            text = text.replace(form, REDACTED)
        return text

    return hide if 0 < len(forms) <= FORMS_MAX else lambda text: text and REDACTED


def shown_spec(spec: JobSpec) -> JobSpec:
    """Return the spec without its secrets. Queue, revision and names of all kinds are never changed."""
    hide = hiding(spec)

    def shown(text: str, chars_max: int = ARGUMENT_CHARS_MAX) -> str:
        return hide(text)[:chars_max]

    def shown_variable(name: str, value: str) -> str:
        if name in spec.no_redact:
            return value
        return REDACTED if name in spec.secret_names or is_secret_name(name) else shown(value)

    return replace(
        spec,
        command=shown(spec.command),
        args=tuple(map(shown, spec.args)),
        repository=shown(shown_address(spec.repository), TEXT_CHARS_MAX),
        working_directory=shown(spec.working_directory, TEXT_CHARS_MAX),
        environment={name: shown_variable(name, value) for name, value in spec.environment.items()},
        owner=shown(spec.owner, NAME_CHARS_MAX),
        metadata={name: shown(value) for name, value in spec.metadata.items()},
    )
