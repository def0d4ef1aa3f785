"""Update expressions of DynamoDB: SET, ADD and REMOVE, of attributes and of the entries of maps."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal

from tests.simulation.dynamodb.errors import invalid
from tests.simulation.dynamodb.expressions import Item, Names, Operand, Path, Value, _Parser, at

CLAUSES = ("SET", "ADD", "REMOVE")
Update = Callable[[Item], Item]


class _UpdateParser(_Parser):
    def __init__(self, text: str, names: Names) -> None:
        super().__init__(text, names)
        self.sets: list[tuple[Path, Operand]] = []
        self.adds: list[tuple[Path, Value]] = []
        self.removes: list[Path] = []
        seen: set[str] = set()
        while self.peek():
            clause = self.next().upper()
            if clause not in CLAUSES or clause in seen:
                raise invalid(f'The "{clause}" section can only be used once in an update expression, or is unknown')
            seen.add(clause)
            self._entry(clause)
            while self.takes(","):
                self._entry(clause)
        paths = self.paths
        for number, path in enumerate(paths):
            for other in paths[number + 1 :]:
                if path[: len(other)] == other[: len(path)]:
                    raise invalid("Two document paths overlap with each other")

    @property
    def paths(self) -> list[Path]:
        return [*(path for path, _ in self.sets), *(path for path, _ in self.adds), *self.removes]

    def _entry(self, clause: str) -> None:
        path = self.path()
        if clause == "REMOVE":
            self.removes.append(path)
        elif clause == "ADD":
            value = self.names.value(self.next())
            if "N" not in value:
                raise invalid(f"Incorrect operand type for operator or function; operator: ADD, operand type: {value}")
            self.adds.append((path, value))
        else:
            self.expect("=")
            left = self._value()
            if (sign := self.peek()) in {"+", "-"}:
                self.next()
                right = self._value()
                self.sets.append((path, _sum(left, right, 1 if sign == "+" else -1)))
            else:
                self.sets.append((path, left))

    def _value(self) -> Operand:
        if self.peek() == "if_not_exists":
            self.next()
            self.expect("(")
            path = self.path()
            self.expect(",")
            other = self._value()
            self.expect(")")
            return lambda item: other(item) if (found := at(item, path)) is None else found
        return self.operand()


def _sum(left: Operand, right: Operand, sign: int) -> Operand:
    def total(item: Item) -> Value:
        return _added(left(item), right(item), sign)

    return total


def _added(left: Value | None, right: Value | None, sign: int = 1) -> Value:
    if left is None or right is None:
        raise invalid("The provided expression refers to an attribute that does not exist in the item")
    if "N" not in left or "N" not in right:
        raise invalid("An operand in the update expression has an incorrect data type")
    return {"N": format(Decimal(left["N"]) + sign * Decimal(right["N"]), "f")}


def update(text: str, names: Names, keys: tuple[str, ...]) -> Update:
    """A function that makes the updated item of an item with its keys."""
    parsed = _UpdateParser(text, names)
    for path in parsed.paths:
        if path[0] in keys:
            raise invalid(f"Cannot update attribute {path[0]}. This attribute is part of the key")

    def updated(item: Item) -> Item:
        new = deepcopy(item)
        for path, operand in parsed.sets:
            if (value := operand(item)) is None:
                raise invalid("The provided expression refers to an attribute that does not exist in the item")
            _owner(new, path)[path[-1]] = value
        for path, value in parsed.adds:
            _owner(new, path)[path[-1]] = _added(at(item, path) or {"N": "0"}, value)
        for path in parsed.removes:
            _owner(new, path).pop(path[-1], None)
        return new

    return updated


def _owner(item: Item, path: Path) -> Item:
    """The map that has the last name of a path."""
    owner = item
    for name in path[:-1]:
        inner = owner.get(name)
        if inner is None or "M" not in inner:
            raise invalid("The document path provided in the update expression is invalid for update")
        owner = inner["M"]
    return owner
