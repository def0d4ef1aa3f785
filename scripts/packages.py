"""Package graph: which package imports which, read from the code and drawn as a Mermaid diagram.

A node is a folder of modules. If two folders import each other, some modules become nodes of their own, so that the
graph has no cycle: a module that the other folder imports and that imports nothing from it, such as `agent/flag.py`;
and a module between the two, such as `broker/requests.py`. Arrows that follow from others are omitted.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PARTS: Final = ("airunner", "client", "agent", "broker", "transport", "certs", "protocol")

Graph = Mapping[str, set[str]]


def mermaid(root: Path = ROOT) -> str:
    """Draw the packages below `root` and the imports between them.

    Raises `graphlib.CycleError` when packages import each other.
    """
    graph = reduced(imports_between_packages(root))
    arrows = [f"    {package} --> {imported}" for package in sorted(graph) for imported in sorted(graph[package])]
    return "\n".join(["flowchart TD", *arrows])


def imports_between_packages(root: Path) -> Graph:
    """Return, for each package, the packages that it imports."""
    modules = {path: set(_imported(root, path)) for part in PARTS for path in _modules(root / part)}
    folders: dict[Path, set[Path]] = {}
    for path, targets in modules.items():
        folders.setdefault(path.parent, set()).update(target.parent for target in targets)
    lone: set[Path] = set()
    for path, targets in modules.items():
        for target in targets:
            mutual = path.parent != target.parent and path.parent in folders[target.parent]
            if not mutual or path.parent in target.parent.parents:
                continue  # if one folder is inside the other, only imports by the inner one make nodes
            below = _below(modules, target)
            if not any(module.parent == path.parent for module in below):
                lone |= {target, *(module for module in below if module.parent == target.parent)}
            elif target.parent in path.parent.parents:
                lone |= {target, path}  # one of the two is between the inner folder and the outer one

    def node(module: Path) -> str:
        return str((module if module in lone else module.parent).relative_to(root))

    graph: dict[str, set[str]] = {}
    for path, targets in modules.items():
        graph.setdefault(node(path), set()).update(node(target) for target in targets)
    return {package: targets - {package} for package, targets in graph.items()}


def reduced(graph: Graph) -> Graph:
    """Remove the arrows that follow from others. Raises `graphlib.CycleError`: the graph has a cycle."""
    below: dict[str, set[str]] = {}
    for package in TopologicalSorter(graph).static_order():
        below[package] = set().union(*({target} | below[target] for target in graph[package]))
    return {
        package: {target for target in targets if not any(target in below[other] for other in targets)}
        for package, targets in graph.items()
    }


def _modules(folder: Path) -> Iterator[Path]:
    """Yield the modules of a part, except in linked folders: airunner/ has links to the other parts."""
    for path in sorted(folder.rglob("*.py")):
        if not any(parent.is_symlink() for parent in path.parents):
            yield path


def _imported(root: Path, module: Path) -> Iterator[Path]:
    """Yield the files of airunner's modules that `module` imports, also inside functions."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (file for name in names if (file := _file(root, name) or _file(root, node.module)))
        elif isinstance(node, ast.Import):
            yield from (file for alias in node.names if (file := _file(root, alias.name)))


def _file(root: Path, name: str) -> Path | None:
    """Return the file of the module `airunner.…`; None: it is a package, or not airunner's."""
    first, *words = name.split(".")
    if first != "airunner" or not words:
        return None
    inner = root if words[0] in PARTS else root / "airunner"
    file = inner.joinpath(*words).with_suffix(".py")
    return file if file.is_file() else None


def _below(graph: Mapping[Path, set[Path]], start: Path) -> set[Path]:
    """Return everything that `start` imports, directly or not."""
    found: set[Path] = set()
    left = [start]
    while left:
        new = graph.get(left.pop(), set()) - found
        found |= new
        left += new
    return found
