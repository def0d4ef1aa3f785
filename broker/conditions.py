"""Conditions that the broker looks for every few seconds, and when /health is shown: damage, descriptors and so on."""

from __future__ import annotations

from collections.abc import Sequence

from airunner.broker.health import Health
from airunner.transport.descriptors import has_descriptor, soft_descriptors


def judge_store(damage: tuple[int, int], health: Health) -> None:
    """Report in /health that the store is damaged. The condition stays until the broker ends."""
    met, aside = damage
    if met:
        jobs = {0: "some requests are refused", 1: "1 job is out of use"}.get(aside, f"{aside} jobs are out of use")
        health.degrade(
            "store",
            f"the store is damaged: {jobs}; stop the broker, run `airunner store check`, and restore a backup with "
            "`airunner store restore`",
        )


def judge_descriptors(health: Health, *, may_clear: bool = True) -> None:
    """Report in /health that this process has no descriptor left, and accepts no further connection.

    `may_clear`: end the condition if there is one again. Where connections come and go, that would be said too often.
    """
    if not has_descriptor():
        health.degrade(
            "descriptors",
            f"all {soft_descriptors()} descriptors are in use, and no further connection is accepted: raise the limit "
            "(LimitNOFILE= of the unit, or `ulimit -n`)",
        )
    elif may_clear:
        health.clear("descriptors")


def judge_durability(warnings: Sequence[str], health: Health) -> None:
    """Report in /health which settings of the database server may lose work that was acknowledged."""
    if warnings:
        health.degrade("durability", "; ".join(warnings))
    else:
        health.clear("durability")
