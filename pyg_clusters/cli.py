"""The command ``pyg-clusters VERB``: parse the options of a verb, call its function, print its result."""

import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from glob import has_magic
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from pyg_clusters import __version__
from pyg_clusters.concurrency import Stopped, check_stopped, stopping_on_signals
from pyg_clusters.errors import InputError, MissingExtra, describe_error, lacks_memory, printable
from pyg_clusters.options import VERBS, Verb
from pyg_clusters.options.parsing import nearest, options_of, parse_options, verb_parser
from pyg_clusters.options.training import DemoOptions
from pyg_clusters.terminal import duration, without_progress
from pyg_clusters.trusted import trusting_files

for _room in ("training", "frames", "screening", "structures"):
    import_module(f"pyg_clusters.options.{_room}")  # registers its verbs, in the order of the help


def main_verbs() -> dict[str, Verb]:
    """Verbs, without their subcommands."""
    return {name: verb for name, verb in VERBS.items() if " " not in name}


PACKAGE = Path(__file__).parent

USAGE = f"""usage: pyg-clusters VERB [ARGUMENTS]    (VERB --help lists the arguments)

{os.linesep.join(f"  {name:<20} {verb.purpose}" for name, verb in main_verbs().items())}

options of every verb:
  --help         list its arguments
  --config FILE  YAML file of options, as NAME: VALUE (for train, a recipe)
  --quiet        print warnings and errors only
  --verbose      also print warnings of libraries, versions, and the time taken
  --debug        show the traceback of an error
  --trust        import any class that a model or run names (may run its code)
  --version      print the version
  --print-completion SHELL    print tab completion for bash, zsh or tcsh
"""

DEMO_RECIPE = "dart-gallium-quick"
DEMO_TRAJECTORY = "gallium_md_57"

SWITCHES = ("--debug", "--trust", "--quiet", "--verbose")  # options without a value, common to all verbs


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        Exit code: 0 on success, 2 after invalid input, 130 after SIGINT, 143 after SIGTERM, 1 after an unexpected
        error.
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
    if verb not in main_verbs() and verb != "--print-completion":
        return _fail(f"unknown verb {verb!r}{nearest(verb, main_verbs()) or '; verbs are ' + ', '.join(main_verbs())}")
    for argument in rest:
        try:
            argument.encode()
        except UnicodeEncodeError:
            return _fail(f"{argument!a}: the name is not UTF-8; rename the file")
    # Before torch is imported: threads that spin while they wait are many times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
    with open(os.devnull, "w", encoding="utf-8") as null:
        with redirect_stdout(null) if quiet else nullcontext(), without_progress() if quiet else nullcontext():
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


def subcommands(verb: str) -> dict[str, Verb]:
    """Subcommands of a verb."""
    return {name.partition(" ")[2]: each for name, each in VERBS.items() if name.startswith(f"{verb} ")}


def run_verb(verb: str, argv: Sequence[str]):
    """Parse the arguments of a verb, call its function, and print the result."""
    if any(name == "out" and not value.strip() for name, value in options_of(argv)):
        raise InputError("--out needs the name of a file or folder (. is the current one)")
    if VERBS[verb].kind:
        verb, argv = f"{verb} {_subcommand(verb, argv)}", argv[1:]
    entry = VERBS[verb]
    if entry.options is not None:
        arguments: Any = _with_files(parse_options(verb, entry.options, entry.example, argv))
    elif {"-h", "--help"} & set(argv):
        print(entry.help, end="")
        raise SystemExit(0)
    else:
        arguments = argv
    module, _, name = entry.function.rpartition(".")
    result = getattr(import_module(module), name)(arguments)
    for part in result if isinstance(result, Iterator) else [result]:
        _show(part)


def _show(result: Any):
    """Print the result of a verb, after the list of skipped frames."""
    if bad := getattr(result, "bad", None):
        from pyg_clusters.frames.checks import list_bad

        list_bad(bad)
    if hasattr(result, "print"):
        result.print()
    elif result is not None:
        print(result)


def _with_files(options: Any) -> Any:
    """Check that the files named in the options exist, before the imports, which take seconds."""
    for name in (name for field in ("frames", "paths") for name in getattr(options, field, None) or ()):
        is_path = os.sep in name or "." in name  # otherwise it may be the name of shipped data or a pretrained model
        if is_path and not has_magic(name) and not os.path.lexists(os.path.expanduser(name)):
            raise InputError(f"{name}: no such file")
    return options


def _subcommand(verb: str, argv: Sequence[str]) -> str:
    """Subcommand named by the first argument."""
    commands = subcommands(verb)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: pyg-clusters {verb} {'|'.join(commands)} [ARGUMENTS | --help]\n")
        for name, each in commands.items():
            print(f"  {name:<14} {each.purpose}")
        examples = (f"example: pyg-clusters {verb} {name} {each.example}" for name, each in commands.items())
        print("", *examples, sep="\n")
        raise SystemExit(0)
    if argv[0] not in commands:
        hint = nearest(argv[0], commands) or f"; choose one of {', '.join(commands)}"
        raise InputError(f"{verb}: there is no {VERBS[verb].kind} {argv[0]!r}{hint}")
    return argv[0]


def completion_script(shell: str) -> str:
    """Script for tab completion.

    Raises:
        InputError: If there is no completion for the shell.
        MissingExtra: Without shtab.
    """
    shells = ("bash", "zsh", "tcsh")
    if shell not in shells:
        raise InputError(f"--print-completion must be {', '.join(shells)}, got {shell!r}")
    if not find_spec("shtab"):
        raise MissingExtra("shtab", "completion", "tab completion")
    parser = ArgumentParser(prog="pyg-clusters")
    by_verb = parser.add_subcommands()
    for verb, entry in main_verbs().items():
        of_verb = _parser(verb, entry)
        by_verb.add_subcommand(verb, of_verb, help=entry.purpose)
        if entry.kind:
            by_name = of_verb.add_subcommands()
            for name, each in subcommands(verb).items():
                by_name.add_subcommand(name, _parser(f"{verb} {name}", each), help=each.purpose)
        for option in dict.fromkeys(re.findall(r"^ +(--[\w.-]+)", entry.help, re.MULTILINE)):
            of_verb.add_argument(option)
    return parser.get_completion_script(f"shtab-{shell}")


def _parser(name: str, entry: Verb) -> ArgumentParser:
    return ArgumentParser() if entry.options is None else verb_parser(name, entry.options, entry.example)


def demo(options: DemoOptions) -> str:
    """Train DART briefly and screen a trajectory with it, in two folders below ``out``.

    Returns:
        The results and their files as text.
    """
    from pyg_clusters.frames.writing import open_output
    from pyg_clusters.inference.run import Run
    from pyg_clusters.options.screening import ScreenOptions
    from pyg_clusters.screening import screen
    from pyg_clusters.training import train

    out = Path(options.out)
    trained, screened = out / "training", out / "screening"
    with open_output(options, results=()):
        print("1. Training DART on the shipped gallium minima")
        if (trained / "config.yaml").exists():
            train(["--resume", str(trained)])
        else:
            train([DEMO_RECIPE, "--out", str(trained)])
        print(f"2. Screening {DEMO_TRAJECTORY}")
        screening = screen(
            ScreenOptions(
                model=str(trained),
                frames=[DEMO_TRAJECTORY],
                top=options.top,
                truth="quench_binding_energy",
                out=str(screened),
                overwrite=True,
            )
        )
        errors = Run(trained).metrics or {}
    return (
        f"3. Done. DART on {errors['num_clusters']} clusters of search segments outside the training set: MAE "
        f"{errors['mae_kcal_mol']:.2f}, RMSE {errors['rmse_kcal_mol']:.2f} kcal/mol per cluster "
        f"({errors['mae_mev_per_atom']:.1f} meV per atom)\n"
        f"   {len(screening.candidates)} candidates of {len(screening.energy)} frames\n"
        f"   report      {screened / 'report.html'}\n"
        f"   candidates  {screened / 'candidates.extxyz'}, {screened / 'candidates.csv'}\n"
        f"   model       {trained / 'best'}\n"
        f"   figures     {trained / 'figures'}"
    )
