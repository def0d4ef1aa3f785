"""Types of job fields: the bounds of the values in `JobSpec` (`fields`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from airunner.protocol.errors import FieldError
from airunner.protocol.names import (
    ARGUMENT_CHARS_MAX,
    ARGUMENTS_MAX,
    NAME_CHARS_MAX,
    TAGS_MAX,
    VARIABLES_MAX,
    Argument,
    Label,
    Name,
    TagValue,
    Variable,
)

PRIORITY_MAX: Final = 100  # the lowest priority is -100
ATTEMPTS_MAX: Final = 100
SECRETS_MAX: Final = 64
METADATA_MAX: Final = 64  # entries; each is a row of an index
TERMINAL_SIDE_MAX: Final = 10_000  # characters
AGENT_SLOTS_MAX: Final = 1_024
KNOWN_MAX: Final = 64  # fields that an agent names
DEPTH_MAX: Final = 1_000_000  # commits

Command = Annotated[str, Meta(min_length=1, max_length=ARGUMENT_CHARS_MAX)]
Arguments = Annotated[tuple[Argument, ...], Meta(max_length=ARGUMENTS_MAX)]
VariableName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Variables = Annotated[dict[VariableName, Argument], Meta(max_length=VARIABLES_MAX)]
Metadata = Annotated[dict[VariableName, Argument], Meta(max_length=METADATA_MAX)]
Secrets = Annotated[tuple[Label, ...], Meta(max_length=SECRETS_MAX)]
SecretFiles = Annotated[tuple[Variable, ...], Meta(max_length=SECRETS_MAX)]
JobTitle = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
Owner = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]  # bounded, so that a page of jobs fits in one reply
Priority = Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
Attempts = Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)]
Depth = Annotated[int, Meta(ge=1, le=DEPTH_MAX)]
TerminalSide = Annotated[int, Meta(ge=1, le=TERMINAL_SIDE_MAX)]
Tags = Annotated[dict[Name, TagValue], Meta(max_length=TAGS_MAX)]
"""Tags that an agent has or a job needs: names with values, such as `{os: linux}`."""
Known = Annotated[tuple[Name, ...], Meta(max_length=KNOWN_MAX)]
"""Fields of jobs that an agent knows, see `musts`."""


def check_secrets(secrets: Sequence[str], secret_files: Sequence[str], no_redact: Sequence[str]) -> None:
    """Check the fields that name secrets. Raises `FieldError`: no names of variables, or one in two fields."""
    for number, name in enumerate(secrets):
        if "=" in name:
            raise FieldError("secrets", f"expected the names of variables, not {name!r}", number)
    if secrets and (both := set(secrets) & set(secret_files)):
        raise FieldError("secret_files", f"{min(both)} is named in secrets too; name it in only one of them")
    if no_redact and (both := {*secrets, *secret_files} & set(no_redact)):
        raise FieldError("no_redact", f"{min(both)} is named as a secret; a secret that a job names is redacted")


def check_folder(folder: str) -> None:
    """Check the working directory. Raises `FieldError`: it is not in the checkout."""
    if folder.startswith("/") or ".." in folder.split("/"):
        raise FieldError("working_directory", f"expected a folder in the checkout, not {folder!r}")
