"""Run the verbs: their arguments, functions and results, and tab completion."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from glob import has_magic
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from jsonargparse import ArgumentParser

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.options import VERBS, Verb
from pyg_clusters.options.parsing import nearest, options_of, parse_options, verb_parser

for _room in ("training", "inference", "screening", "structures", "frames", "papers"):
    import_module(f"pyg_clusters.options.{_room}")  # registers its verbs, in the order of the help


def main_verbs() -> dict[str, Verb]:
    """The verbs without their subcommands."""
    return {name: verb for name, verb in VERBS.items() if " " not in name}


def subcommands(verb: str) -> dict[str, Verb]:
    """Subcommands of a verb."""
    return {name.partition(" ")[2]: each for name, each in VERBS.items() if name.startswith(f"{verb} ")}


def run_verb(verb: str, argv: Sequence[str]):
    """Parse the arguments of a verb, call its function, and print the result.

    Raises:
        InputError: If the arguments cannot be used.
        SystemExit: After the help.
    """
    if any(name == "out" and not value.strip() for name, value in options_of(argv)):
        raise InputError("--out needs the name of a file or folder (. is the current one)")
    if VERBS[verb].kind:
        verb, argv = f"{verb} {_subcommand(verb, argv)}", argv[1:]
    entry = VERBS[verb]
    if entry.options is not None:
        given: Any = _with_files(parse_options(verb, entry.options, entry.example, argv))
    elif {"-h", "--help"} & set(argv):
        print(entry.help, end="")
        raise SystemExit(0)
    else:
        given = argv
    result = _named(entry.function)(given)
    for part in result if isinstance(result, Iterator) else [result]:
        _show(part, part if not entry.text else _named(entry.text)(part, given))


def _named(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _show(result: Any, text: Any):
    """Print the result of a verb, after the frames that were left out."""
    if bad := getattr(result, "bad", None):
        from pyg_clusters.frames.checks import list_bad

        list_bad(bad)
    if hasattr(text, "print"):
        text.print()
    elif text is not None:
        print(text)


def _with_files(options: Any) -> Any:
    """The options, if the files that they name exist: known in a second, before packages are imported for many."""
    for name in (name for field in ("frames", "paths", "parts") for name in getattr(options, field, None) or ()):
        is_path = os.sep in name or "." in name  # otherwise it may name shipped data or a pretrained model
        if is_path and not has_magic(name) and not os.path.lexists(os.path.expanduser(name)):
            raise InputError(f"{name}: no such file")
    return options


def _subcommand(verb: str, argv: Sequence[str]) -> str:
    """Subcommand named by the first argument."""
    commands = subcommands(verb)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: pyg-clusters {verb} {'|'.join(commands)} [ARGUMENTS]    (add --help for the arguments)\n")
        for name, each in commands.items():
            print(f"  {name:<14} {each.purpose}")
        examples = (f"example: pyg-clusters {verb} {name} {each.example}" for name, each in commands.items())
        print("", *examples, sep="\n")
        raise SystemExit(0)
    if argv[0] not in commands:
        hint = nearest(argv[0], commands) or f"; give {', '.join(commands)} first"
        raise InputError(f"{verb}: there is no {VERBS[verb].kind} {argv[0]!r}{hint}")
    return argv[0]


def completion_script(shell: str) -> str:
    """Script for tab completion.

    Args:
        shell: bash, zsh or tcsh.

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
