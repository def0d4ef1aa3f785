"""Process of the `airunner` command: makes its standard streams and its start safe, and decides how it ends.

An error that an operator or the other side can fix becomes a message on stderr and an exit code. Without `--debug`, a
traceback means a bug of ours.

Guarantees
- Ctrl-C ends the process with 130 and without a word, while it still imports its modules too, and while it ends.
- No file and no socket of ours gets the descriptor of a standard stream that the parent has closed.
- Results that cannot be written to stdout are an error; messages that cannot be written to stderr are left out.

Modules of ours are imported in functions, because Ctrl-C must be handled before them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airunner.protocol.errors import OperatorError, PeerError

EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as in shells
EXIT_READER_GONE: Final = 141  # 128 + SIGPIPE


def run(argv: Sequence[str]) -> int:
    """Run `airunner ARGV` and return its exit code."""
    from airunner.client.cli.standardstreams import ReaderGone
    from airunner.protocol.errors import OperatorError, PeerError
    from airunner.transport.descriptors import require_descriptors

    try:
        require_descriptors()
        try:
            code = 0 if _answer(argv) else _run_command(argv)
        finally:
            sys.stdout.flush()  # here, where a failure has an exit code
    except (ReaderGone, BrokenPipeError, SystemExit):  # the parser makes the last of a broken pipe
        return EXIT_READER_GONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (OperatorError, PeerError, OSError) as error:
        return _report(error)
    except BaseExceptionGroup as group:
        if group.split(ReaderGone)[1] is None:
            return EXIT_READER_GONE
        return _report(_only_fixable(group))
    return code if isinstance(code, int) else 0


def _answer(argv: Sequence[str]) -> bool:
    """Print the help or the version, if that is asked; return whether it was. No command is imported for it."""
    if argv[:1] == ["_complete"]:
        from airunner.completing import main as complete

        complete(argv[1:])
        return True
    words = [word for word in argv if word != "--debug"]
    asked = words[0] if words else "--help"
    if asked == "help" and len(words) > 1:
        from airunner.helpcommand import answer

        return answer(words[1:])
    if asked in ("-h", "--help") or asked == "help":
        from airunner.commandtable import help_text

        sys.stdout.write(help_text())
    elif asked in ("-V", "--version"):
        from airunner import __version__

        sys.stdout.write(f"airunner {__version__}\n")
    else:
        return False
    return True


def _run_command(argv: Sequence[str]) -> object:
    """Run a command; return its exit code. Raises `OperatorError` for words that the parser does not understand."""
    from airunner.client.cli.commands import words_after_dashes
    from airunner.commandline import make_app
    from airunner.commandtable import TABLE
    from airunner.usage import UsageError, unknown_command, usage_error

    if argv[0] == "help":
        argv = (*argv[1:], "--help")
    operands = argv[2:] if argv[0] == "--cluster" else argv  # of `airunner`, the only option with a value
    named = next((word for word in operands if not word.startswith("-")), "")
    if named == argv[0] and named not in TABLE:
        raise unknown_command("airunner", argv, TABLE)
    try:
        return make_app(named)(list(argv), prog_name="airunner", obj=words_after_dashes(argv), standalone_mode=False)
    except UsageError as error:
        raise usage_error(error, named) from error


def _report(error: OperatorError | PeerError | OSError) -> int:
    """Print the error's message on stderr, with `--debug` after its traceback, and return its exit code."""
    from airunner.protocol.errors import EXIT_IO
    from airunner.protocol.printable import own_lines
    from airunner.switches import debug_is_on

    if debug_is_on():
        import traceback

        traceback.print_exception(error)
    message, code = (_words(error), EXIT_IO) if isinstance(error, OSError) else (error.message, error.exit_code)
    if "airunner.variables" in sys.modules:
        from airunner.variables import renamed

        message = renamed(message)
    print(f"airunner: {own_lines(message)}", file=sys.stderr)  # a message may quote other people's text
    return code


def _words(error: OSError) -> str:
    """Describe an error of the operating system that no module has described."""
    words = ": ".join(filter(None, (error.filename, error.strerror or str(error))))
    if error.errno == errno.EMFILE:
        return f"{words}; raise the limit with `ulimit -n 1024`"
    if error.errno == errno.ENOENT and error.filename is None:  # of getcwd()
        return "the working directory does not exist any more: change to another folder"
    return words


def _only_fixable(group: BaseExceptionGroup[BaseException]) -> OperatorError | PeerError | OSError:
    """Return the first error of a task group; raise the group when a bug of ours is among its errors."""
    from airunner.protocol.errors import OperatorError, PeerError

    fixable, ours = group.split((OperatorError, PeerError, OSError))
    if ours is not None or fixable is None:
        raise group
    error: BaseException = fixable
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, (OperatorError, PeerError, OSError)), "split() returned another error"
    return error


def main() -> None:
    """Run the `airunner` command."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it may be ignored, as by `nohup`
    if interruptible:
        signal.signal(signal.SIGINT, _end_at_once)
    _open_missing()
    from airunner.client.cli.standardstreams import open_standard_streams

    open_standard_streams()
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        import_module("airunner.commandline")  # now, while Ctrl-C ends the process at once
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(sys.argv[1:])
        if interruptible:
            signal.signal(signal.SIGINT, _end_at_once)
    except KeyboardInterrupt:  # it came between `run` and here
        code = EXIT_INTERRUPTED
    except BaseException as bug:  # noqa: BLE001 - Python's own exit code would be that of a job
        import traceback

        from airunner.protocol.errors import EXIT_BUG

        traceback.print_exception(bug)
        code = EXIT_BUG
    sys.stderr.flush()
    os._exit(code)  # at once: Python's own end takes 20 ms, and gives SIGINT its default action, another exit code


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_INTERRUPTED)


def _open_missing() -> None:
    """Open /dev/null as each standard stream that is closed, for the wrong direction: its use fails as before.

    Otherwise the next file or socket would get the descriptor, and output meant for the stream. The same is done by
    gnulib's `stdopen`, which coreutils use.
    """
    for descriptor, direction in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, direction), True)  # noqa: FBT003 - it gets the lowest number


if __name__ == "__main__":
    main()
