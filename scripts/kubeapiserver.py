"""Build of a kube-apiserver from the Go module proxy, for the tests of `airunner scale kubernetes`.

It takes six minutes of one core, and is kept in ~/.cache/airunner: the tests find it there. Without it they run against
a server of their own that answers as it does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

VERSION: Final = "1.34.4"
CACHED: Final = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / f"airunner/kube-apiserver-{VERSION}"
MAIN: Final = """package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
"""
STAGED: Final = re.compile(r"^\s+(k8s\.io/[a-z-]+) => \./staging/", re.MULTILINE)  # modules that are released as v0.x


def main() -> int:
    """Build it, unless it is there."""
    if CACHED.is_file():
        print(CACHED)
        return 0
    if shutil.which("go") is None:
        print("there is no go on the PATH: install Go", file=sys.stderr)
        return 1
    environ = {**os.environ, "GOFLAGS": "-mod=mod"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "go.mod").write_text("module kubeapiserver\n")

        def go(*words: str) -> str:
            return subprocess.run(
                ["go", *words], cwd=folder, env=environ, check=True, stdout=subprocess.PIPE, text=True
            ).stdout

        module = f"k8s.io/kubernetes@v{VERSION}"
        path = re.search(r'"GoMod": "(.+)"', go("mod", "download", "-json", module))
        assert path is not None, "go has named no go.mod"
        minor = VERSION.removeprefix("1")
        staged = STAGED.findall(Path(path[1]).read_text())
        go("mod", "edit", f"-require={module}", *(f"-replace={each}={each}@v0{minor}" for each in staged))
        (folder / "main.go").write_text(MAIN)
        go("mod", "tidy", "-e")
        go("build", "-trimpath", "-ldflags=-s -w", "-o", "kube-apiserver", ".")
        CACHED.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "kube-apiserver", CACHED)
    print(CACHED)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
