"""Cluster port: what a cluster has to do for the scaler, and the state of the agents in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

from msgspec import Struct


class UnitState(Enum):
    """State of a unit. The cluster has at most one unit of a name that is `LIVE` or `ENDING`."""

    LIVE = auto()  # it waits for a machine, starts or runs
    ENDING = auto()  # it is being removed: it has its name still, and runs no more jobs
    DONE = auto()  # its agent has ended; the name is free
    FAILED = auto()  # its agent could not be started, or has failed; the name is free after a pause


class Unit(Struct, frozen=True):
    """Unit of a cluster that runs one agent of the scaler: a Kubernetes Job or a Slurm job."""

    name: str  # of the unit and of its agent
    key: str  # identity in the cluster, which no later unit of this name has
    state: UnitState
    note: str = ""  # why it failed


class ClusterAway(Exception):
    """Cluster did not answer, or answered that it cannot now; what was asked may have been done."""


class Cluster(Protocol):
    """Cluster that runs units. Every method may raise `ClusterAway`, and `OperatorError` if it refuses for good."""

    async def check(self) -> None:
        """Check, without starting anything, that the cluster would accept a unit."""
        ...

    async def units(self) -> Sequence[Unit]:
        """List the latest unit of each name of this scaler."""
        ...

    async def start(self, name: str, ended: Unit | None) -> bool:
        """Start a unit; `ended` is the unit that had this name. False: there is one of this name, so none is started.

        When the call is cut off, or raises `ClusterAway`, the unit may have been started; a repeat starts no second.
        """
        ...

    async def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed` when units have changed, for ever; return at once if the cluster reports no changes."""
        ...
