"""The command ``pyg-clusters VERB``."""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version
from pathlib import Path

from pyg_clusters import __version__
from pyg_clusters.cli.commands import completion_script, main_verbs, run_verb
from pyg_clusters.errors import InputError, MissingExtra, describe_error, lacks_memory, printable
from pyg_clusters.options.parsing import nearest
from pyg_clusters.progress import duration, without_progress
from pyg_clusters.stopping import Stopped, check_stopped, stopping_on_signals
from pyg_clusters.trusted import trusting_files

VERBS = main_verbs()

PACKAGE = Path(__file__).parents[1]

USAGE = f"""usage: pyg-clusters VERB [ARGUMENTS]    (pyg-clusters VERB --help lists the arguments)

{os.linesep.join(f"  {name:<20} {verb.purpose}" for name, verb in VERBS.items())}

options of every verb:
  --help         list its arguments
  --config FILE  YAML file of its options, a line NAME: VALUE each (of train: a recipe)
  --quiet        print warnings and errors only
  --verbose      also print warnings of libraries, versions, and the time taken
  --debug        show the traceback of an error
  --trust        import any class named in the folder of a model or run, which may run code from that folder
  --version      print the version
  --print-completion SHELL    print a script for tab completion in bash, zsh or tcsh
"""

SWITCHES = ("--debug", "--trust", "--quiet", "--verbose")
"""Options of every verb without a value."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        The exit code: 0 on success, 2 after an error in the input, 130 after SIGINT, 143 after SIGTERM, and 1 after an
        unexpected error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug, trust, quiet, verbose = (switch in arguments for switch in SWITCHES)
    arguments = [argument for argument in arguments if argument not in SWITCHES]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if "--version" in arguments:
        print(__version__)
        return 0
    verb, *rest = arguments
    if verb not in VERBS and verb != "--print-completion":
        return _fail(f"unknown verb {verb!r}{nearest(verb, VERBS) or '; there are ' + ', '.join(VERBS)}")
    strange = next((argument for argument in rest if not _is_utf8(argument)), None)
    if strange is not None:
        return _fail(f"{strange!a}: the name is not UTF-8; rename the file")
    _shorten_warnings(verbose)
    try:
        with stopping_on_signals(), trusting_files(trust), _output(quiet, verbose):
            try:
                if verb == "--print-completion":
                    print(completion_script(*rest[:1] or [""]))
                else:
                    run_verb(verb, rest)
            finally:
                check_stopped()  # a library may have swallowed the signal
    except (InputError, MissingExtra) as error:
        if debug:
            raise
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        print(f"pyg-clusters: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}")
        if lacks_memory(error):
            return _fail(
                f"{describe_error(error)}; use a machine with more memory, or smaller clusters, batches or models"
            )
        _fail(f"unexpected {describe_error(error)} ({_origin(error)}); please report it with the output of --debug")
        return 1
    return 0


def _origin(error: BaseException) -> str:
    """File and line of this package where an error arose."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"


def _is_utf8(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fail(message: str) -> int:
    print("pyg-clusters: " + printable(" ".join(message.split())), file=sys.stderr)
    return 2


@contextmanager
def _output(quiet: bool, verbose: bool) -> Iterator[None]:
    """Context of ``--quiet`` and ``--verbose``."""
    start = time.monotonic()
    if verbose:
        packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torch-geometric", "ase"))
        print(f"pyg-clusters {__version__}, Python {sys.version.split()[0]}, {packages}", file=sys.stderr)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        with redirect_stdout(nowhere) if quiet else nullcontext(), without_progress() if quiet else nullcontext():
            yield
    if verbose:
        print(f"finished after {duration(time.monotonic() - start)}", file=sys.stderr)


def _shorten_warnings(of_libraries: bool):
    """Print warnings as one line, those of libraries on request."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    if of_libraries:
        return
    for module in ("pytorch_lightning", "torch", "lightning_utilities", "jsonargparse", "torch_geometric"):
        warnings.filterwarnings("ignore", module=module)
