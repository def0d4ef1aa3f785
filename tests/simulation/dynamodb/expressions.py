"""Expressions of DynamoDB: conditions, key conditions, updates and projections, parsed into functions of an item.

As much of the language as an engine may use; anything else is refused as AWS refuses it, with a ValidationException.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tests.simulation.dynamodb.errors import invalid
from tests.simulation.dynamodb.reserved import RESERVED

Value = dict[str, Any]
Item = dict[str, Value]
Path = tuple[str, ...]
Operand = Callable[[Item], Value | None]
Test = Callable[[Item], bool]

_TOKEN = re.compile(r"\s*(<>|<=|>=|[#:]?[A-Za-z_0-9]+|[()=<>,.+\-])")
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
WORDS_MAX = 300  # operators of an expression


def plain(value: Value) -> Any:
    """What a value is compared by."""
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return Decimal(content)
        case "S":
            return content.encode()
        case "M":
            return {name: (next(iter(inner)), plain(inner)) for name, inner in content.items()}
        case "L":
            return [(next(iter(inner)), plain(inner)) for inner in content]
        case _:
            return content


def at(item: Item, path: Path) -> Value | None:
    """The value at a path, if there is one."""
    found: Value | None = {"M": item}
    for name in path:
        found = found.get("M", {}).get(name) if found is not None else None
    return found


def same(left: Value | None, right: Value | None) -> bool:
    return left is not None and right is not None and left.keys() == right.keys() and plain(left) == plain(right)


class Names:
    """Placeholders of one request: those that no expression uses are refused."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._names: Mapping[str, str] = request.get("ExpressionAttributeNames", {})
        self._values: Mapping[str, Value] = request.get("ExpressionAttributeValues", {})
        for field in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
            if field in request and not request[field]:
                raise invalid(f"{field} must not be empty")
        self._used: set[str] = set()

    def name(self, word: str) -> str:
        if not word.startswith("#"):
            if word.upper() in RESERVED:
                raise invalid(f"Attribute name is a reserved keyword; reserved keyword: {word}")
            return word
        if word not in self._names:
            raise invalid(f"An expression attribute name used in the document path is not defined: {word}")
        self._used.add(word)
        return self._names[word]

    def value(self, word: str) -> Value:
        if word not in self._values:
            raise invalid(f"An expression attribute value used in expression is not defined: {word}")
        self._used.add(word)
        return self._values[word]

    def require_used(self) -> None:
        for field, given in (("Names", self._names), ("Values", self._values)):
            if unused := sorted(given.keys() - self._used):
                raise invalid(f"Value provided in ExpressionAttribute{field} unused in expressions: keys: {unused}")


class _Parser:
    def __init__(self, text: str, names: Names) -> None:
        self.names = names
        self._text = text
        self._words = self._split(text)
        if not self._words:
            raise invalid("The expression can not be empty")
        self._at = 0

    @staticmethod
    def _split(text: str) -> list[str]:
        words, place = [], 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise invalid(f"Syntax error; token: {text[place:]!r}")
            words.append(found[1])
            place = found.end()
        if len(words) > WORDS_MAX:
            raise invalid("The expression contains too many operators")
        return words

    def peek(self, ahead: int = 0) -> str:
        return self._words[self._at + ahead] if self._at + ahead < len(self._words) else ""

    def next(self) -> str:
        word = self.peek()
        self._at += 1
        return word

    def takes(self, *words: str) -> bool:
        """Go over a word if it is one of these."""
        found = self.peek().upper() in words
        self._at += found
        return found

    def expect(self, word: str) -> None:
        if not self.takes(word):
            raise invalid(f"Syntax error; token: {self.peek()!r}, near: {self._text!r}")

    def path(self) -> Path:
        word = self.next()
        if not re.fullmatch(r"#?[A-Za-z_0-9]+", word) or word[0].isdigit():
            raise invalid(f"Syntax error; token: {word!r}, near: {self._text!r}")
        names = [self.names.name(word)]
        while self.takes("."):
            names.append(self.names.name(self.next()))
        return tuple(names)

    def end(self) -> None:
        if self.peek():
            raise invalid(f"Syntax error; token: {self.peek()!r}, near: {self._text!r}")

    # --- conditions ---

    def any_of(self) -> Test:
        tests = [self.all_of()]
        while self.takes("OR"):
            tests.append(self.all_of())
        return tests[0] if len(tests) == 1 else lambda item: any(test(item) for test in tests)

    def all_of(self) -> Test:
        tests = [self.not_one()]
        while self.takes("AND"):
            tests.append(self.not_one())
        return tests[0] if len(tests) == 1 else lambda item: all(test(item) for test in tests)

    def not_one(self) -> Test:
        if self.takes("NOT"):
            test = self.not_one()
            return lambda item: not test(item)
        return self.one()

    def one(self) -> Test:
        if self.takes("("):
            begins = self.peek() == "("
            test = self.any_of()
            ends = self.peek(-1) == ")"
            self.expect(")")
            if begins and ends and self._wraps():
                raise invalid("The expression has redundant parentheses")
            return test
        if self.peek(1) == "(" and self.peek() != "size":
            return self.function()
        left = self.operand()
        if self.takes("BETWEEN"):
            low = self.operand()
            self.expect("AND")
            high = self.operand()
            bounds = low({}), high({})  # where both are values
            if all(bounds) and not ordered("<=", *bounds):
                raise invalid("The BETWEEN operator requires upper bound to be greater than or equal to lower bound")
            return lambda item: ordered(">=", left(item), low(item)) and ordered("<=", left(item), high(item))
        word = self.next()
        right = self.operand()
        if word == "=":
            return lambda item: same(left(item), right(item))
        if word == "<>":
            return lambda item: not same(left(item), right(item))
        if word not in _ORDER:
            raise invalid(f"Syntax error; token: {word!r}, near: {self._text!r}")
        return lambda item: ordered(word, left(item), right(item))

    def _wraps(self) -> bool:
        """Whether the parentheses that have just ended have nothing in them but others."""
        place, depth = self._at - 2, 0  # the inner end
        while True:
            depth += (self._words[place] == ")") - (self._words[place] == "(")
            if depth == 0:
                return self._words[place - 1] == "(" and self._opens_at(self._at - 1) == place - 1
            place -= 1

    def _opens_at(self, place: int) -> int:
        depth = 0
        while True:
            depth += (self._words[place] == ")") - (self._words[place] == "(")
            if depth == 0:
                return place
            place -= 1

    def function(self) -> Test:
        name = self.next()
        self.expect("(")
        path = self.path()
        if name == "attribute_exists":
            self.expect(")")
            return lambda item: at(item, path) is not None
        if name == "attribute_not_exists":
            self.expect(")")
            return lambda item: at(item, path) is None
        if name not in {"begins_with", "contains"}:
            raise invalid(f"Invalid function name; function: {name}")
        self.expect(",")
        other = self.operand()
        self.expect(")")
        return lambda item: _text_test(name, at(item, path), other(item))

    def operand(self) -> Operand:
        if self.peek().startswith(":"):
            value = self.names.value(self.next())
            return lambda _: value
        if self.peek() == "size" and self.peek(1) == "(":
            self._at += 2
            path = self.path()
            self.expect(")")
            return lambda item: _size(at(item, path))
        path = self.path()
        return lambda item: at(item, path)


def _text_test(name: str, value: Value | None, part: Value | None) -> bool:
    if value is None or part is None or value.keys() != part.keys() or not value.keys() & {"S", "B"}:
        return False
    return plain(value).startswith(plain(part)) if name == "begins_with" else plain(part) in plain(value)


def _size(value: Value | None) -> Value | None:
    if value is None or not value.keys() & {"S", "B", "M", "L"}:
        return None
    return {"N": str(len(next(iter(value.values()))))}


def ordered(operator: str, left: Value | None, right: Value | None) -> bool:
    if left is None or right is None or left.keys() != right.keys() or not left.keys() & {"S", "N", "B"}:
        return False
    return _ORDER[operator](plain(left), plain(right))


def condition(text: str | None, names: Names) -> Test:
    """A condition on an item, which is {} where there is none."""
    if text is None:
        return lambda _: True
    parser = _Parser(text, names)
    test = parser.any_of()
    parser.end()
    return test


class KeyCondition(NamedTuple):
    """Which items a query is for: the value of the partition key, and tests of the sort key."""

    partition: tuple[str, Value]
    sort: str | None
    test: Test


def key_condition(text: str, names: Names, keys: Sequence[str]) -> KeyCondition:
    """The key condition of a query of a table or index with these keys."""
    parser = _Parser(text, names)
    compared: dict[str, Value] = {}
    tests: dict[str, Test] = {}
    while True:
        start, word = parser._at, parser.peek(2 if parser.peek() == "begins_with" else 0)
        name = names.name(word)
        if parser.peek(1) == "=":
            compared[name] = names.value(parser.peek(2))
        if name in tests:
            raise invalid("KeyConditionExpressions must only contain one condition per key")
        tests[name] = parser.one()
        if {*parser._words[start : parser._at]} & {"<>", "OR", "NOT", "contains", "attribute_exists"}:
            raise invalid("Invalid operator used in KeyConditionExpression")
        if not parser.takes("AND"):
            break
    parser.end()
    partition, *sort = keys
    if partition not in compared or not tests.keys() <= set(keys):
        raise invalid("Query condition missed key schema element or has others")
    return KeyCondition(
        (partition, compared[partition]),
        sort[0] if sort and sort[0] in tests else None,
        tests.get(sort[0], lambda _: True) if sort else lambda _: True,
    )


def projection(text: str | None, names: Names) -> Callable[[Item], Item]:
    """What is shown of an item: all of it, or some of its attributes."""
    if text is None:
        return dict
    parser = _Parser(text, names)
    paths = [parser.path()]
    while parser.takes(","):
        paths.append(parser.path())
    parser.end()

    def shown(item: Item) -> Item:
        part: Item = {}
        for path in paths:
            if (value := at(item, path)) is not None:
                into = part
                for name in path[:-1]:
                    into = into.setdefault(name, {"M": {}})["M"]
                into[path[-1]] = value
        return part

    return shown
