"""Types of names and ids, and the bounds of their values.

A `NewType` costs nothing at run time and prevents a job's id from being used as a queue's name.
Lengths are checked when a message is decoded, so no other code meets an unbounded value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, Final, NewType

from msgspec import Meta

RequestId = NewType("RequestId", bytes)
"""16 bytes chosen by the sender; the key of idempotency."""

TaskToken = NewType("TaskToken", bytes)
"""256 unpredictable bits that authorize one attempt; see `task_token`."""

TokenHash = NewType("TokenHash", bytes)
"""Hash of a task token, which the broker stores."""

WatchKey = NewType("WatchKey", bytes)
"""256 random bits that decrypt one job's live events."""

JobId = NewType("JobId", str)
"""A UUID version 4 (RFC 9562) in its canonical text: it cannot be guessed, and its first characters tell jobs apart."""

CLOSE: Final = 0.7  # similarity from which a word is taken for another, mistyped
REQUEST_ID_BYTES: Final = 16
REQUEST_ID_RANDOM_BYTES: Final = 10
TOKEN_BYTES: Final = 32
SEED_BYTES: Final = 32
JOB_ID_RANDOM_BYTES: Final = 16
HASH_BYTES: Final = 32

NAME_CHARS_MAX: Final = 128
TEXT_CHARS_MAX: Final = 4_096
ARGUMENT_CHARS_MAX: Final = 131_072  # Linux's own bound on one argument (MAX_ARG_STRLEN)
ARGUMENTS_MAX: Final = 4_096
VARIABLES_MAX: Final = 1_024
TAGS_MAX: Final = 32
PORT_MAX: Final = 65_535
MILLISECONDS_MAX: Final = 2**53 - 1  # the largest integer that a number of JavaScript represents exactly

NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.@:/+-]*\Z"
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX, pattern=NAME_PATTERN)]
"""Name of a queue, a tenant, an agent or a tag: it needs no quotes in a shell."""

NAME_EXPECTED: Final = f"1 to {NAME_CHARS_MAX} letters, digits and any of _.@:/+-, the first a letter, a digit or _"

AGENT_NAME_VARIABLE: Final = "AIRUNNER_AGENT_NAME"
"""Variable with the name of an agent, for `airunner agent` without --name."""

JobName = Annotated[str, Meta(min_length=1, max_length=64)]
TAG_VALUE_PATTERN: Final = r"^[ -~]*\Z"
TAG_VALUE_EXPECTED: Final = f"up to {NAME_CHARS_MAX} characters of ASCII"
TagValue = Annotated[str, Meta(max_length=NAME_CHARS_MAX, pattern=TAG_VALUE_PATTERN)]
Label = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
VARIABLE_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]*\Z"
Variable = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX, pattern=VARIABLE_PATTERN)]
"""Name of a variable that every shell can read."""
VARIABLE_EXPECTED: Final = f"1 to {NAME_CHARS_MAX} letters, digits and _, not beginning with a digit"

Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
Argument = Annotated[str, Meta(max_length=ARGUMENT_CHARS_MAX)]
Natural = Annotated[int, Meta(ge=0, le=MILLISECONDS_MAX)]
Positive = Annotated[int, Meta(ge=1, le=MILLISECONDS_MAX)]
Token = Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
Seed = Annotated[bytes, Meta(min_length=SEED_BYTES, max_length=SEED_BYTES)]


def fits_name(text: str) -> bool:
    """Return whether `text` is a valid `Name`."""
    return 1 <= len(text) <= NAME_CHARS_MAX and re.match(NAME_PATTERN, text) is not None


def fits_tag_value(text: str) -> bool:
    """Return whether `text` is a valid `TagValue`."""
    return len(text) <= NAME_CHARS_MAX and re.match(TAG_VALUE_PATTERN, text) is not None


def fits_variable(text: str) -> bool:
    """Return whether `text` is a valid `Variable`."""
    return len(text) <= NAME_CHARS_MAX and re.match(VARIABLE_PATTERN, text) is not None


def task_token(seed: bytes, job_id: str, attempt: int) -> TaskToken:
    """Derive the task token of one lease, so that a repeated request gets the same token.

    The agent draws `seed` at random for each DequeueJob and sends it again when it repeats the request; the broker does
    not store it.
    """
    return TaskToken(blake2b(f"{job_id}\n{attempt}".encode(), key=seed, digest_size=TOKEN_BYTES).digest())


def token_hash(token: bytes) -> TokenHash:
    """Hash a task token for the store; 256 random bits need no salt."""
    return TokenHash(blake2b(token, digest_size=HASH_BYTES, person=b"airunner token").digest())


def new_request_id(now_ms: int, randomness: bytes) -> RequestId:
    """Make a request id from the instant `now_ms` and ten random bytes: it sorts by time, as a UUID version 7 does.

    So the ids of requests that are stored together are neighbours in the broker's index, and change one of its pages
    instead of one each.
    """
    assert len(randomness) == REQUEST_ID_RANDOM_BYTES
    return RequestId((now_ms & (2**48 - 1)).to_bytes(6, "big") + randomness)


def new_job_id(randomness: bytes) -> JobId:
    """Make a job id, a UUID version 4, from sixteen random bytes (RFC 9562, section 5.4)."""
    assert len(randomness) == JOB_ID_RANDOM_BYTES
    octets = bytearray(randomness)
    octets[6] = 0x40 | octets[6] & 0x0F  # version
    octets[8] = 0x80 | octets[8] & 0x3F  # variant
    text = octets.hex()  # many times as fast as a UUID object
    return JobId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Find the name that a mistyped word is nearest to, or that alone begins with it; None: it is near to none."""
    from difflib import get_close_matches

    names = list(names)
    begun = [name for name in names if word and name.startswith(word)]
    return begun[0] if len(begun) == 1 else next(iter(get_close_matches(word, names, 1, CLOSE)), None)
