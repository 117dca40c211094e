"""Commands of the verbs: their options, subcommands, and tab completion."""

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from glob import has_magic
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.options.parsing import nearest, options_of, parse_options, verb_parser


class Command(NamedTuple):
    """A verb, or a subcommand of one.

    Attributes:
        options: Dataclass of its options.
        example: A command, printed at the end of the help.
        run: Function that is called with the options.
        purpose: Purpose of a subcommand, for the help.
    """

    options: type
    example: str
    run: Callable[[Any], None]
    purpose: str = ""


def run_verb(verb: str, argv: Sequence[str]):
    """Parse the arguments of a verb and run it.

    Its module has ``OPTIONS``, ``EXAMPLE`` and ``run(options)``; or subcommands, ``COMMANDS``, and a word for them,
    ``KIND``; or, if it parses its arguments itself, ``HELP`` and ``run(argv)``.

    Raises:
        InputError: If the arguments cannot be used.
        SystemExit: After the help.
    """
    module = _module(verb)
    if any(name == "out" and not value.strip() for name, value in options_of(argv)):
        raise InputError("--out needs the name of a file or folder (. is the current one)")
    if hasattr(module, "HELP"):
        module.run(argv)
    elif hasattr(module, "COMMANDS"):
        name, command = _subcommand(verb, module, argv)
        command.run(_with_files(parse_options(f"{verb} {name}", command.options, command.example, argv[1:])))
    else:
        module.run(_with_files(parse_options(verb, module.OPTIONS, module.EXAMPLE, argv)))


def _with_files(options: Any) -> Any:
    """The options, if the files that they name exist: known in a second, before packages are imported for many."""
    for name in (name for field in ("frames", "paths", "parts") for name in getattr(options, field, None) or ()):
        is_path = os.sep in name or "." in name  # otherwise it may name shipped data or a pretrained model
        if is_path and not has_magic(name) and not os.path.lexists(os.path.expanduser(name)):
            raise InputError(f"{name}: no such file")
    return options


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"pyg_clusters.cli.{verb.replace('-', '_')}")


def _subcommand(verb: str, module: ModuleType, argv: Sequence[str]) -> tuple[str, Command]:
    """Subcommand named by the first argument."""
    commands: dict[str, Command] = module.COMMANDS
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: pyg-clusters {verb} {'|'.join(commands)} [ARGUMENTS]    (add --help for the arguments)\n")
        for name, command in commands.items():
            print(f"  {name:<14} {command.purpose}")
        print("", *(f"example: {command.example}" for command in commands.values()), sep="\n")
        raise SystemExit(0)
    if argv[0] not in commands:
        hint = nearest(argv[0], commands) or f"; give {', '.join(commands)} first"
        raise InputError(f"{verb}: there is no {module.KIND} {argv[0]!r}{hint}")
    return argv[0], commands[argv[0]]


def completion_script(verbs: Mapping[str, str], shell: str) -> str:
    """Script for tab completion.

    Args:
        verbs: Verbs and their purposes.
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
    for verb, purpose in verbs.items():
        module = _module(verb)
        plain = hasattr(module, "OPTIONS")
        of_verb = verb_parser(verb, module.OPTIONS, module.EXAMPLE) if plain else ArgumentParser()
        by_verb.add_subcommand(verb, of_verb, help=purpose)
        if hasattr(module, "COMMANDS"):
            by_name = of_verb.add_subcommands()
            for name, command in module.COMMANDS.items():
                of_name = verb_parser(f"{verb} {name}", command.options, command.example)
                by_name.add_subcommand(name, of_name, help=command.purpose)
        for option in dict.fromkeys(re.findall(r"^ +(--[\w.-]+)", getattr(module, "HELP", ""), re.MULTILINE)):
            of_verb.add_argument(option)
    return parser.get_completion_script(f"shtab-{shell}")
