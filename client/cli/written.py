"""YAML values as they are written: `on`, `1.10`, `0777` and `2026-01-31` are text for every key that has text.

YAML 1.1 gives such words another meaning before the key's type is known. Here a plain word is a `Written`: text, with
its meaning in YAML for keys that have a number, a boolean or null.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    import yaml

    _Construct = Callable[[Any, yaml.ScalarNode], object]


class Written(str):
    """Written word of a YAML document, and the value that YAML 1.1 has for it."""

    __slots__ = ("meaning",)

    meaning: object

    def __new__(cls, text: str, meaning: object) -> Self:
        """Make text with its meaning in YAML."""
        made = super().__new__(cls, text)
        made.meaning = meaning
        return made


def load(raw: bytes) -> object:
    """Load a document: mappings, lists, `str` for text, `Written` for plain words that are not text to YAML.

    Raises `yaml.YAMLError`, `ValueError`, `RecursionError`.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Loader of PyYAML, with other constructors for plain scalars."""

    for tag, usual in (
        ("bool", Loader.construct_yaml_bool),
        ("float", Loader.construct_yaml_float),
        ("int", Loader.construct_yaml_int),
        ("null", Loader.construct_yaml_null),
        ("timestamp", Loader.construct_yaml_timestamp),
        ("merge", _text),  # a lone `<<` or `=`, for which PyYAML has no value
        ("value", _text),
    ):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", partial(_written, usual))
    return yaml.load(raw, Loader)  # noqa: S506 - a SafeLoader


def meaning_of(value: object) -> object:
    """Return the meaning in YAML of a `Written`, and any other value as it is."""
    return value.meaning if isinstance(value, Written) else value


def _written(usual: _Construct, loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Written:
    try:
        meaning = usual(loader, node)
    except ValueError:  # no such day, or a number of too many digits
        meaning = _text(loader, node)
    return Written(_text(loader, node), meaning)


def _text(_: object, node: yaml.ScalarNode) -> str:
    return str(node.value)
