"""Command `airunner completion`: prints the script by which a shell asks `airunner _complete` for the words that fit.

Each script calls it with the words up to the cursor, and gets a candidate a line: a word, and behind a tab what it is.
A line `:files` or `:folders` asks the shell to complete paths itself. Nothing else is printed, whatever fails.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

import typer

from airunner.protocol.errors import OperatorError

BASH: Final = r"""# bash completion of airunner; for example in ~/.local/share/bash-completion/completions/airunner
_airunner() {
    local found
    mapfile -t found < <(airunner _complete bash "$2" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case "${found[0]}" in
    :files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
    :folders) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
    *) COMPREPLY=("${found[@]%%$'\t'*}") ;;
    esac
}
complete -o nosort -F _airunner airunner
"""
ZSH: Final = r"""#compdef airunner
# zsh completion of airunner; for example in a folder of $fpath, as _airunner
_airunner() {
    local -a found described
    found=("${(@f)$(airunner _complete zsh '' "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    case "${found[1]}" in
    :files) _files; return ;;
    :folders) _files -/; return ;;
    '') return 1 ;;
    esac
    described=("${(@)${(@)found//:/\\:}/$'\t'/:}")
    _describe -V airunner described
}
if [ "$funcstack[1]" = _airunner ]; then _airunner "$@"; else compdef _airunner airunner; fi
"""
FISH: Final = r"""# fish completion of airunner; for example in ~/.config/fish/completions/airunner.fish
function __airunner_complete
    set -l found (airunner _complete fish '' (commandline -opc)[2..] (commandline -ct) 2>/dev/null)
    switch "$found[1]"
        case :files
            __fish_complete_path (commandline -ct)
        case :folders
            __fish_complete_directories (commandline -ct) ''
        case '*'
            printf '%s\n' $found
    end
end
complete -c airunner -f -k -a '(__airunner_complete)'
"""
SCRIPTS: Final = MappingProxyType({"bash": BASH, "zsh": ZSH, "fish": FISH})


class Shell(StrEnum):
    """Shell with a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion_command(
    shell: Annotated[
        Shell | None,
        typer.Argument(metavar="SHELL", help="The shell: bash, zsh or fish.", show_default="that of $SHELL"),
    ] = None,
) -> None:
    """Print the script by which a shell completes commands, options, jobs, queues, states and files.

    For this shell only: `source <(airunner completion bash)`, or in fish `airunner completion fish | source`.
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119 - a word
    if name not in SCRIPTS:
        raise OperatorError(f"SHELL: expected bash, zsh or fish, as in `airunner completion bash`, not {name!r}")
    sys.stdout.write(SCRIPTS[name])
