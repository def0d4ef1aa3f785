"""Package graph: which package imports which, read from the code and drawn as a Mermaid diagram.

A node is a folder of modules. A module that its own inner folders import, as `agent/flag.py`, is a node by itself:
otherwise the two would seem to import each other. An arrow that follows from others is left out.
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
    shared = {
        imported
        for path, targets in modules.items()
        for imported in targets
        if imported.parent in path.parents and imported.parent != path.parent
    }
    cyclic = {module for module in shared if any(_is_inside(target, module) for target in _siblings(modules, module))}

    def node(module: Path) -> str:
        return str((module if module in cyclic else module.parent).relative_to(root))

    graph: dict[str, set[str]] = {}
    for path, targets in modules.items():
        graph.setdefault(node(path), set()).update(node(target) for target in targets)
    return {package: targets - {package} for package, targets in graph.items()}


def reduced(graph: Graph) -> Graph:
    """Remove each arrow that follows from others. Raises `graphlib.CycleError`: the graph has a cycle."""
    below: dict[str, set[str]] = {}
    for package in TopologicalSorter(graph).static_order():
        below[package] = set().union(*({target} | below[target] for target in graph[package]))
    return {
        package: {target for target in targets if not any(target in below[other] for other in targets)}
        for package, targets in graph.items()
    }


def _modules(folder: Path) -> Iterator[Path]:
    """Yield the modules of a part; links in airunner/ are the other parts."""
    for path in sorted(folder.rglob("*.py")):
        if not any(parent.is_symlink() for parent in path.parents):
            yield path


def _imported(root: Path, module: Path) -> Iterator[Path]:
    """Yield the files of our modules that `module` imports, anywhere in it."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (file for name in names if (file := _file(root, name) or _file(root, node.module)))
        elif isinstance(node, ast.Import):
            yield from (file for alias in node.names if (file := _file(root, alias.name)))


def _file(root: Path, name: str) -> Path | None:
    """Return the file of the module `airunner.…`; None: it is a package, or not ours."""
    first, *words = name.split(".")
    if first != "airunner" or not words:
        return None
    inner = root if words[0] in PARTS else root / "airunner"
    file = inner.joinpath(*words).with_suffix(".py")
    return file if file.is_file() else None


def _siblings(modules: Mapping[Path, set[Path]], module: Path) -> Iterator[Path]:
    """Yield what the modules beside `module` import."""
    for path, targets in modules.items():
        if path.parent == module.parent and path != module:
            yield from targets


def _is_inside(target: Path, module: Path) -> bool:
    """Return whether `target` is in a folder inside that of `module`."""
    return module.parent in target.parents and target.parent != module.parent
