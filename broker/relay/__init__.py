"""The relay of live events: a process of the broker's own, which may die of what subscribers do."""
