"""Edits of config.yaml that leave its comments and its order: one setting is set or removed, the rest stays as typed.

The changed text is parsed and compared with what is meant; a file that is laid out in another way than expected is left
alone, and the user edits it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airunner.client.settings import Config, compose, parse_config
from airunner.protocol.errors import OperatorError

if TYPE_CHECKING:
    import yaml

_PLAIN: Final = re.compile(r"(?!null$|~$)[\w./@+][\w./:@+-]*(?<!:)", re.IGNORECASE)
_CLUSTERS: Final = "clusters"
_STEP: Final = 2  # columns by which settings of a cluster are indented


def key_of(name: str) -> tuple[str, ...]:
    """Split the name of a setting, `queue` or `clusters.prod.queue`. Raises `OperatorError`."""
    if not name.startswith(f"{_CLUSTERS}."):
        return (name,)
    _, _, rest = name.partition(".")
    cluster, _, setting = rest.rpartition(".")
    if not cluster:
        raise OperatorError(f"{name!r} names no setting of a cluster: write clusters.NAME.SETTING")
    return (_CLUSTERS, cluster, setting)


def changed(text: str, path: Path, name: str, value: str | None) -> str:
    """Return the text with a setting of another value; None: without it. Raises `OperatorError`."""
    key = key_of(name)
    before = parse_config(text, path)
    after = _replaced(text, path, key, value)
    try:
        fits = _settings(parse_config(after, path)) == _meant(before, key, value)
    except OperatorError:
        fits = False
    if not fits:
        raise OperatorError(f"{path} is laid out in a way that this command does not change: edit {name} by hand")
    return after


def _settings(config: Config) -> dict[tuple[str, ...], str]:
    """Return all settings by their keys; a cluster without settings has the empty one."""
    own: dict[tuple[str, ...], str] = {(name,): setting.value for name, setting in config.settings.items()}
    if config.cluster is not None:
        own["cluster",] = config.cluster.value
    for cluster, settings in config.clusters.items():
        own[_CLUSTERS, cluster, ""] = ""
        own |= {(_CLUSTERS, cluster, name): setting.value for name, setting in settings.items()}
    return own


def _meant(config: Config, key: tuple[str, ...], value: str | None) -> dict[tuple[str, ...], str]:
    found = _settings(config)
    if value is None:
        found.pop(key, None)
        return found
    if key[1:]:
        found[_CLUSTERS, key[1], ""] = ""
    return found | {key: value}


def _replaced(text: str, path: Path, key: tuple[str, ...], value: str | None) -> str:
    """Change the text at the deepest part of the key that exists; the caller checks the result."""
    lines = [f"{line}\n" for line in text.splitlines()]
    found = _found(compose(text, path), key)
    if len(found) == len(key):
        begin, end = found[-1][1].start_mark, found[-1][1].end_mark
        if value is None:
            return "".join((*lines[: begin.line], *lines[end.line + 1 :]))
        line = lines[begin.line][: begin.column] + _scalar(value) + lines[end.line][end.column :]
        return "".join((*lines[: begin.line], line, *lines[end.line + 1 :]))
    if value is None:
        return text
    column, at = 0, len(lines) if key[0] == _CLUSTERS else 0
    if found:
        name, node = found[-1]
        at = name.end_mark.line + 1
        inner = _pairs(node)
        column = inner[0][0].start_mark.column if inner else name.start_mark.column + _STEP
        if not inner:  # nothing, or {}
            lines[at - 1] = f"{lines[at - 1][: name.end_mark.column]}:\n"
    words = key[len(found) :]
    new = [f"{' ' * (column + _STEP * number)}{_scalar(word)}:" for number, word in enumerate(words)]
    new[-1] += f" {_scalar(value)}"
    return "".join((*lines[:at], *(f"{line}\n" for line in new), *lines[at:]))


def _found(node: yaml.Node | None, key: tuple[str, ...]) -> list[tuple[yaml.Node, yaml.Node]]:
    """Find the entries of the parts of a key, as far as they exist."""
    found: list[tuple[yaml.Node, yaml.Node]] = []
    for part in key:
        pair = next((pair for pair in _pairs(node) if pair[0].value == part), None)
        if pair is None:
            break
        found.append(pair)
        node = pair[1]
    return found


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the entries of a mapping; of anything else none."""
    import yaml

    return node.value if isinstance(node, yaml.MappingNode) else []


def _scalar(text: str) -> str:
    """Write text so that YAML reads the same text."""
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "''") + "'"
