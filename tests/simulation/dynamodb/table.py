"""The table of a fake DynamoDB: items by partition and sort key, and sparse indexes that are fed late.

```
 put, remove ──► items (at once) ──► log of the last FED_LATE_S ──► indexes, as of up to so long ago
```
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tests.simulation.dynamodb.expressions import Item, Value, plain
from tests.simulation.dynamodb.limits import (
    PARTITION_KEY_BYTES_MAX,
    SORT_KEY_BYTES_MAX,
    item_bytes,
    require_key,
    units_of,
)

FED_LATE_S: Final = 5.0  # at the most, an index shows what was so long ago

Key = tuple[bytes, bytes]


class Index(NamedTuple):
    """Keys of an index, or of the table itself, with their types."""

    partition: str
    partition_type: str
    sort: str
    sort_type: str

    def has(self, item: Item) -> bool:
        """Whether an item is in the index."""
        return self.partition in item and self.sort in item

    def place(self, item: Item) -> tuple[Any, Any]:
        """Where an item of the index is in it."""
        return plain(item[self.partition]), plain(item[self.sort])

    @property
    def names(self) -> tuple[str, str]:
        return self.partition, self.sort


TABLE: Final = Index("pk", "S", "sk", "S")
INDEXES: Final[Mapping[str, Index]] = MappingProxyType(
    {
        "waiting": Index("w", "S", "wp", "B"),
        "due": Index("d", "S", "dn", "N"),
        "listed": Index("l", "S", "n", "N"),
    }
)


class Change(NamedTuple):
    """What an item was before a write."""

    at_s: float
    key: Key
    before: Item | None


class Table:
    """Items, and what they were in the last seconds.

    `now_s`: the server's time. `late_s`: draws for each item how long ago an index shows it, if it changed lately.
    """

    def __init__(
        self,
        now_s: Callable[[], float] = lambda: 0.0,
        late_s: Callable[[], float] = lambda: 0.0,
        indexes: Mapping[str, Index] = INDEXES,
    ) -> None:
        self.indexes = indexes
        self.now_s = now_s
        self.late_s = late_s
        self.units: float = 0  # written in all
        self._items: dict[bytes, dict[bytes, Item]] = {}
        self._entries: dict[str, dict[Any, dict[Key, Item]]] = {name: {} for name in indexes}
        self._log: deque[Change] = deque()

    @staticmethod
    def key_of(item: Item) -> Key:
        return TABLE.place(item)

    def get(self, key: Key) -> Item | None:
        return self._items.get(key[0], {}).get(key[1])

    def get_late(self, key: Key) -> Item | None:
        """What a read that is not consistent may show: an item as of up to `FED_LATE_S` ago."""
        since_s = self.now_s() - self.late_s()
        late = (change.before for change in self._log if change.key == key and change.at_s > since_s)
        return next(late, self.get(key))

    def partition(self, value: Value) -> Iterator[Item]:
        """Items of a partition, as they are now."""
        yield from self._items.get(plain(value), {}).values()

    def items(self) -> Iterator[Item]:
        """All items, as they are now."""
        for partition in self._items.values():
            yield from partition.values()

    def require_indexed(self, item: Item) -> None:
        """Require that the keys of indexes that an item has are such keys."""
        for name, index in self.indexes.items():
            for attribute, kind, most in (
                (index.partition, index.partition_type, PARTITION_KEY_BYTES_MAX),
                (index.sort, index.sort_type, SORT_KEY_BYTES_MAX),
            ):
                if attribute in item:
                    require_key(attribute, item[attribute], kind, most, f"key of index {name}")

    def write(self, key: Key, item: Item | None, *, transactional: bool) -> dict[str, float]:
        """Put or remove an item; return the units that this takes of the table ("") and of each index."""
        before = self.get(key)
        self._log.append(Change(self.now_s(), key, before))
        while self._log and self._log[0].at_s < self.now_s() - FED_LATE_S:
            self._log.popleft()
        for name, index in self.indexes.items():
            if before is not None and index.has(before):
                del self._entries[name][index.place(before)[0]][key]
            if item is not None and index.has(item):
                self._entries[name].setdefault(index.place(item)[0], {})[key] = item
        if item is not None:
            self._items.setdefault(key[0], {})[key[1]] = item
        elif before is not None:
            del self._items[key[0]][key[1]]
            if not self._items[key[0]]:
                del self._items[key[0]]
        units = self.units_of(before, item, transactional=transactional)
        self.units += sum(units.values())
        return units

    def units_of(self, before: Item | None, item: Item | None, *, transactional: bool) -> dict[str, float]:
        """Write units of a change: the larger of both items; and of each index whose entry it puts or removes."""
        size = max((item_bytes(one) for one in (before, item) if one is not None), default=0)
        units: dict[str, float] = {"": units_of(size) * (2 if transactional else 1)}
        for name, index in self.indexes.items():
            entries = [self.entry(index, one) for one in (before, item) if one is not None and index.has(one)]
            if len(entries) == 2 and entries[0] == entries[1]:
                continue
            if entries:
                units[name] = sum(units_of(item_bytes(entry)) for entry in entries)
        return units

    @staticmethod
    def entry(index: Index, item: Item) -> Item:
        """What an index has of an item: its keys only."""
        return {name: item[name] for name in (*TABLE.names, *index.names)}

    def shown(self, name: str, value: Value) -> Iterator[Item]:
        """Entries of an index's partition, each as of up to `FED_LATE_S` ago."""
        index = self.indexes[name]
        overlay: dict[Key, Item | None] = {}
        since_s: dict[Key, float] = {}
        now_s = self.now_s()
        for change in reversed(self._log):
            if change.key not in since_s:
                since_s[change.key] = now_s - self.late_s()
            if change.at_s > since_s[change.key]:
                overlay[change.key] = change.before
        for key, item in self._entries[name].get(plain(value), {}).items():
            if key not in overlay:
                yield self.entry(index, item)
        for before in overlay.values():
            if before is not None and index.has(before) and before[index.partition] == value:
                yield self.entry(index, before)

    def remove_expired(self, now_s: float) -> int:
        """Remove items whose time to live is over, as AWS does sooner or later; return how many."""
        expired = [self.key_of(item) for item in self.items() if "N" in item.get("ttl", {}) and self._over(item, now_s)]
        units = self.units
        for key in expired:
            self.write(key, None, transactional=False)
        self.units = units  # AWS takes nothing for it
        return len(expired)

    @staticmethod
    def _over(item: Item, now_s: float) -> bool:
        return float(item["ttl"]["N"]) < now_s
