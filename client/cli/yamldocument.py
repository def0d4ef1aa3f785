"""YAML documents whose words stay as they are typed, each with its line; duplicate keys are refused.

PyYAML parses the text; this module makes values of its nodes, because PyYAML itself gives plain words the meanings of
YAML 1.1 and lets the last of two equal keys win.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from airunner.client.cli.written import DEPTH_MAX, Entries, Items, MiswrittenError, Written, refuse

if TYPE_CHECKING:
    import yaml

_TAG: Final = "tag:yaml.org,2002:"
_TEXTS: Final = {f"{_TAG}{name}" for name in ("str", "int", "float", "timestamp", "value", "merge")}
_TRUTHS: Final = {**dict.fromkeys(("yes", "true", "on"), True), **dict.fromkeys(("no", "false", "off"), False)}
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def parse(text: str) -> object:
    """Parse a document. Raises `MiswrittenError`, and `RecursionError` when it is nested too deeply."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Loader that refuses deep nesting: of each open bracket it looks whether it begins a key, to the end."""

        def fetch_more_tokens(self) -> None:
            if self.flow_level > DEPTH_MAX:
                raise RecursionError
            super().fetch_more_tokens()

    try:
        node = yaml.compose(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "it ends too early"
        if problem.startswith("but "):  # the end of a sentence that begins in the context
            problem = f"{error.context} {problem}"
        elif error.context and error.context_mark is not None and error.context_mark.line != (mark and mark.line):
            problem = f"{problem} {error.context} that begins in line {error.context_mark.line + 1}"
        refuse(mark.line + 1 if mark is not None else 1, f"this is neither YAML nor JSON: {problem}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        refuse(line, f"this is neither YAML nor JSON: the character {chr(error.character)!a} is not allowed")
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode
        refuse(1, f"this is neither YAML nor JSON: {error}")
    return Written("", 1, None) if node is None else _Values().of(node)


class _Values:
    """Values of the nodes of one document; an alias is the value of its anchor."""

    def __init__(self) -> None:
        self._made: dict[int, object] = {}  # by the node's id; the document keeps its nodes alive

    def of(self, node: yaml.Node) -> object:
        """Return the value of a node."""
        if id(node) not in self._made:
            self._made[id(node)] = MiswrittenError(_line(node), "this contains itself")
            self._made[id(node)] = self._new(node)
        value = self._made[id(node)]
        if isinstance(value, MiswrittenError):
            raise value
        return value

    def _new(self, node: yaml.Node) -> object:
        import yaml

        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._entries(node)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                items = Items(_line(node))
                items.extend(map(self.of, node.value))
                return items
            case yaml.ScalarNode(tag=tag, value=str(text)) if tag in _TEXTS:
                return Written(_joined(text, node), _line(node))
            case yaml.ScalarNode(tag="tag:yaml.org,2002:null", value=text):
                return Written(text, _line(node), None)
            case yaml.ScalarNode(tag="tag:yaml.org,2002:bool", value=text) if text.lower() in _TRUTHS:
                return Written(text, _line(node), _TRUTHS[text.lower()])
            case _:
                raise MiswrittenError(_line(node), f"the tag {node.tag.replace(_TAG, '!!')} has no meaning here")

    def _entries(self, node: yaml.MappingNode) -> Entries:
        entries = Entries(_line(node))
        merged: list[object] = []
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged.append(self.of(value_node))
                continue
            key = self.of(key_node)
            if not isinstance(key, Written):
                refuse(_line(key_node), "a key is text, not a list or a mapping")
            entries.add(key, self.of(value_node))
        for source in merged:
            for mapping in source if isinstance(source, Items) else [source]:
                if not isinstance(mapping, Entries):
                    refuse(_line(node), "`<<` takes a mapping, or a list of mappings")
                for key, value in mapping.items():
                    entries.setdefault(key, value)
        return entries


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _joined(text: str, node: yaml.Node) -> str:
    r"""Join the halves of surrogate pairs, such as `\ud83d\ude80`, which JSON permits in double quotes."""
    if not _SURROGATES.search(text):
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        refuse(_line(node), f"{text[:40]!a} has half of a surrogate pair, which is no character")
