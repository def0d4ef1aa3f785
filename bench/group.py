"""Group of figures that are measured together, in rounds: what a file of the benchmark adds to the table.

```
GROUP = Group("commands", FIGURES, opened)

@contextmanager
def opened(product: Product) -> Generator[Round]:
    with cluster(product, spawn=4) as where:           # once
        yield lambda: {"name": Reading(value, reference)}   # called once a round
```
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec import Struct

from bench.figures import Figure, Sample
from bench.product import Product

Round = Callable[[], Sample]


class Group(Struct, frozen=True):
    """Figures that one function measures: `opened` sets up what they need, and yields what measures one round.

    A group that is not in the `table` is measured only when `--only` names it.
    """

    name: str
    figures: tuple[Figure, ...]
    opened: Callable[[Product], AbstractContextManager[Round]]
    rounds: int = 3
    table: bool = True
