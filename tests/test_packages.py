"""The graph of packages is read from the code, without arrows that follow from others, and refuses a cycle."""

from __future__ import annotations

from graphlib import CycleError
from pathlib import Path

import pytest
from packages import mermaid


def drawn(root: Path, **modules: str) -> list[str]:
    """Draw a project whose modules import others: `agent__leases__leaser="agent.flag"`."""
    for name, imported in modules.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"import airunner.{module}\n" for module in imported.split()))
    return [line.strip() for line in mermaid(root).splitlines()[1:]]


def test_an_arrow_that_follows_from_others_is_left_out(tmp_path: Path) -> None:
    arrows = drawn(tmp_path, broker__a="certs.b protocol.c", certs__b="protocol.c", protocol__c="")
    assert arrows == ["broker --> certs", "certs --> protocol"]


def test_a_module_at_the_bottom_of_its_folder_is_a_node_where_it_breaks_a_cycle(tmp_path: Path) -> None:
    arrows = drawn(tmp_path, agent__run="agent.leases.a agent.flag", agent__flag="", agent__leases__a="agent.flag")
    assert arrows == ["agent --> agent/leases", "agent/leases --> agent/flag.py"]


def test_a_cycle_of_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CycleError):
        drawn(tmp_path, agent__leases__a="agent.output.b", agent__output__b="agent.leases.a")
