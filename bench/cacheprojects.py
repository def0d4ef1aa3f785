"""Projects of the benchmark of caches: small ones, as their tools want them, each with a cache that is worth having."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

_PACKAGES: Final = 6
_UNITS: Final = 24
_INCLUDES: Final = "".join(f"#include <{name}>\n" for name in ("map", "regex", "string", "vector", "iostream"))
_PYTHON: Final = str(Path(sys.base_prefix) / "bin/python3")  # that of a virtual environment may have no pip
GIT: Final = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "init.defaultBranch=main")


class Project(Struct, frozen=True):
    """Project: the tool that it needs, the cache's preset, its command, and the function that writes its files."""

    tool: str
    preset: str
    script: str
    write: Callable[[Path], None]

    @property
    def is_possible(self) -> bool:
        """Whether this machine has the tool."""
        return shutil.which(self.tool) is not None

    def make(self, folder: Path) -> None:
        """Make a repository of the project. Raises `CalledProcessError`: its packages cannot be had."""
        folder.mkdir(parents=True)
        self.write(folder)
        for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "project")):
            subprocess.run([*GIT, *words], cwd=folder, check=True, capture_output=True)


def _call(folder: Path, *words: str) -> None:
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


def _go(folder: Path) -> None:
    (folder / "go.mod").write_text("module example.com/bench\n\ngo 1.21\n")
    for number in range(_PACKAGES):
        package = folder / f"p{number}"
        package.mkdir()
        (package / "p_test.go").write_text(
            f"""package p{number}
import ("encoding/json"; "net/http"; "net/http/httptest"; "testing"; "github.com/google/go-cmp/cmp")
func TestServe(t *testing.T) {{
    server := httptest.NewServer(http.NotFoundHandler())
    defer server.Close()
    if _, err := http.Get(server.URL); err != nil {{ t.Fatal(err) }}
    if text, _ := json.Marshal({number}); cmp.Diff(string(text), "{number}") != "" {{ t.Fatal(text) }}
}}
"""
        )
    _call(folder, "go", "mod", "tidy")


def _cargo(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / ".gitignore").write_text("target\n")
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "bench"\nversion = "0.1.0"\nedition = "2021"\n'
        '[dependencies]\nserde_json = "1"\nregex = "1"\n'
    )
    (folder / "src/lib.rs").write_text(
        """#[cfg(test)]
mod tests {
    #[test]
    fn finds() {
        let value: serde_json::Value = serde_json::from_str("[1, 2]").unwrap();
        assert!(regex::Regex::new("^.1").unwrap().is_match(&value.to_string()));
    }
}
"""
    )
    _call(folder, "cargo", "generate-lockfile")


def _npm(folder: Path) -> None:
    (folder / ".gitignore").write_text("node_modules\n")
    (folder / "package.json").write_text(
        '{"name": "bench", "version": "1.0.0", "dependencies": {"express": "4", "lodash": "4", "typescript": "5"}}\n'
    )
    _call(folder, "npm", "install", "--package-lock-only")


def _pip(folder: Path) -> None:
    (folder / "requirements.txt").write_text("numpy\nrequests\nrich\n")


def _ccache(folder: Path) -> None:
    for number in range(_UNITS):
        (folder / f"u{number}.cc").write_text(
            f"{_INCLUDES}std::map<std::string, std::regex> unit{number}() {{\n"
            f'    return {{{{"a", std::regex("a+{number}")}}}};\n}}\n'
        )
    (folder / "Makefile").write_text(
        "OBJECTS = $(patsubst %.cc,%.o,$(wildcard *.cc))\nall: $(OBJECTS)\n%.o: %.cc\n\tccache g++ -O1 -c $< -o $@\n"
    )


PROJECTS: Final = {
    "go test": Project("go", "go", "go test -count=1 ./...", _go),
    "cargo test": Project("cargo", "cargo", "cargo test --quiet", _cargo),
    "npm ci": Project("npm", "npm", "npm ci", _npm),
    "pip install": Project(_PYTHON, "pip", f"{_PYTHON} -m pip install -q -r requirements.txt --target site", _pip),
    "ccache make": Project("ccache", "ccache", "make -j2", _ccache),
}
"""By name of the figure."""
