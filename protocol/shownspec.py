"""Shown spec: a job's spec without its secrets, for everybody but the agent that runs the job. Pure.

The values that are removed are those in the job's environment: of the variables that the job names in `secrets`, of
those with secret names, and the credentials in URLs, there and in the arguments and the repository's address. They are
removed wherever else in the spec they stand, quoted and escaped in any of the ways that `readings` knows, such as in
`sh -c "curl -H 'Bearer …'"`; and, unless there are many, in base64 and hexadecimal. Values of sealed secrets and of the
agent's are known to the agent alone.
"""

from __future__ import annotations

import base64
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Final

from msgspec.structs import replace

from airunner.protocol.fields import JobSpec
from airunner.protocol.gitaddress import shown_address
from airunner.protocol.names import ARGUMENT_CHARS_MAX, NAME_CHARS_MAX, TEXT_CHARS_MAX
from airunner.protocol.readings import LEVELS_MAX, Unsearchable, decoded, folded, spans_of
from airunner.protocol.redaction import (
    HIDDEN_BYTES_MIN,
    NAMED_BYTES_MIN,
    REDACTED,
    credential_spans,
    is_secret_name,
    merged_spans,
    secret_values,
    without_credentials,
)

VALUES_CHARS_MAX: Final = 8_192  # of all secret values together, such as two keys of 4096 bits
NEEDLES_MAX: Final = (
    256  # with these bounds, a job is searched for its secrets in at most some 40 ms, and usually in 0.1 ms
)
ENCODINGS: Final = 8  # of each value: base64 at three offsets in two alphabets, and hexadecimal in two cases

_FOR_URLS: Final = bytes.maketrans(b"+/", b"-_")
_CONTINUATION: Final = 0xC0, 0x80  # mask and value of a byte that continues a character in UTF-8


class HiddenValues:
    """Secret values of a spec: hides them in texts. If they are too many to be searched for, hides all of the texts."""

    def __init__(self, values: Sequence[str]) -> None:
        searchable = sum(map(len, values)) <= VALUES_CHARS_MAX
        self._folds, self._literals = _needles(values) if searchable else ((), ())
        count = len(self._folds) + len(self._literals)
        self._searchable = searchable and count <= NEEDLES_MAX
        if self._searchable and count + ENCODINGS * len(values) <= NEEDLES_MAX:
            encoded = (folded(each) for value in values for each in _encoded(_bytes(value.strip())))
            self._folds += tuple({each for each in encoded if len(each) >= HIDDEN_BYTES_MIN})

    def hide(self, text: str) -> str:
        """Hide the values and the credentials of URLs in a text."""
        return self.hide_each([text])[0]

    def hide_each(self, texts: Sequence[str]) -> list[str]:
        """Hide the values and the credentials of URLs in each text, and a value that several texts make together."""
        joined = "\n".join(texts)
        try:
            spans = merged_spans([*self._spans(joined), *credential_spans(joined)])
        except Unsearchable:
            return [text and REDACTED for text in texts]
        ends = [end for _, end in spans]
        shown: list[str] = []
        offset = 0
        for text in texts:
            here = islice(spans, bisect_right(ends, offset), bisect_left(spans, (offset + len(text), 0)))
            shown.append(_without(here, text, offset))
            offset += len(text) + 1
        return shown

    def _spans(self, text: str) -> list[tuple[int, int]]:
        if not self._searchable:
            raise Unsearchable
        raw = _bytes(text)
        spans = spans_of(self._folds, self._literals, raw)
        if not spans or len(raw) == len(text):
            return spans
        mask, continues = _CONTINUATION
        index = list(accumulate((byte & mask != continues for byte in raw), initial=0))
        return [(index[begin], index[end]) for begin, end in spans]


def hiding(spec: JobSpec) -> Callable[[str], str]:
    """Return the function that removes the spec's secrets from a text; if there are too many, all of the text."""
    hidden = _hidden_values(spec)
    return hidden.hide if hidden else without_credentials


def shown_spec(spec: JobSpec) -> JobSpec:
    """Return the spec without its secrets. Queue, revision and names of all kinds are never changed."""
    hidden = _hidden_values(spec)

    def hide(texts: Iterable[str], chars_max: int = ARGUMENT_CHARS_MAX) -> list[str]:
        shown = hidden.hide_each(tuple(texts)) if hidden else map(without_credentials, texts)
        return [text[:chars_max] for text in shown]

    opened = {name: value for name, value in spec.environment.items() if name in spec.no_redact}
    named = {name for name in spec.environment if name in spec.secret_names or is_secret_name(name)}
    others = {name: value for name, value in spec.environment.items() if name not in named and name not in opened}
    shown = {**dict(zip(others, hide(others.values()), strict=True)), **opened}
    command, *args = hide(spec.argv)
    return replace(
        spec,
        command=command,
        args=tuple(args),
        repository=shown_address(*hide([spec.repository], TEXT_CHARS_MAX)),
        working_directory="".join(hide([spec.working_directory], TEXT_CHARS_MAX)),
        environment={name: shown.get(name, REDACTED) for name in spec.environment},
        name="".join(hide([spec.name], NAME_CHARS_MAX)),
        owner="".join(hide([spec.owner], NAME_CHARS_MAX)),
        metadata=dict(zip(spec.metadata, hide(spec.metadata.values()), strict=True)),
    )


def shown_command(spec: JobSpec) -> str:
    """Return the spec's command as in `shown_spec`, without looking at the rest of the spec."""
    hidden = _hidden_values(spec)
    command = hidden.hide_each(spec.argv)[0] if hidden else without_credentials(spec.command)
    return command[:ARGUMENT_CHARS_MAX]


def _hidden_values(spec: JobSpec) -> HiddenValues | None:
    """Find the values to hide: of the environment's secrets, and credentials in arguments and repository's address."""
    addresses = " ".join((*spec.argv, spec.repository))
    values = secret_values({**spec.environment, "": addresses}, spec.secret_names, spec.no_redact).hidden
    return HiddenValues(values) if values else None


def _needles(values: Iterable[str]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return what to search for: folded values and lines of them; and, as they are, values that folding cuts at an end.

    A value that is itself escaped is searched for decoded, too, and any value as escapes of Latin-1 have it.
    """
    folds: set[bytes] = set()
    literals: set[bytes] = set()
    for value in values:
        bare = value.strip()
        raw = _bytes(bare)
        if len(folded(raw)) < NAMED_BYTES_MIN or folded(raw[:1] + raw[-1:]) != raw[:1] + raw[-1:]:
            literals |= {raw, json.dumps(bare)[1:-1].encode()}
        texts = {raw, _in_latin(bare)}
        for _ in range(LEVELS_MAX):
            more = {decoded(text) for text in texts}
            if more <= texts:
                break
            texts |= more
        lines = (line for text in texts for line in text.splitlines())
        folds |= {part for part in map(folded, texts) if len(part) >= NAMED_BYTES_MIN}
        folds |= {part for part in map(folded, lines) if len(part) >= HIDDEN_BYTES_MIN}
    return tuple(folds), tuple(literals)


def _encoded(raw: bytes) -> Iterator[bytes]:
    """Yield base64 and hexadecimal of a value: of base64 the characters that encode it alone, as a part of more too."""
    for ahead, shared in ((0, 0), (1, 2), (2, 3)):
        alone = base64.b64encode(bytes(ahead) + raw)[shared : (ahead + len(raw)) * 8 // 6]
        yield from (alone, alone.translate(_FOR_URLS))
    yield from (raw.hex().encode(), raw.hex().upper().encode())


def _in_latin(text: str) -> bytes:
    return b"".join(char.encode("latin-1") if char <= "\xff" else _bytes(char) for char in text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _without(spans: Iterable[tuple[int, int]], text: str, offset: int) -> str:
    """Replace the spans, which overlap with the text that begins at `offset`."""
    shown: list[str] = []
    at = 0
    for begin, end in spans:
        shown += (text[at : max(0, begin - offset)], REDACTED)
        at = end - offset
    return "".join([*shown, text[at:]])
