"""Verbs with subcommands, for example ``pyg-clusters generate sblda``."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pyg_clusters.errors import InputError


class Part(NamedTuple):
    """Subcommand: the function called with the remaining arguments, and its purpose for the help."""

    run: Callable[[Sequence[str]], None]
    purpose: str


def run_part(verb: str, kind: str, parts: Mapping[str, Part], examples: Sequence[str], argv: Sequence[str]):
    """Run the subcommand named by the first argument, or print the help.

    Args:
        verb: The verb.
        kind: A word for its subcommands.
        parts: Subcommands by name.
        examples: Commands, printed in the help.
        argv: Arguments after the verb.

    Raises:
        InputError: If there is no such subcommand.
        SystemExit: After the help.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: pyg-clusters {verb} {kind.upper()} [ARGUMENTS]    ({kind.upper()} --help lists the arguments)\n")
        for name, part in parts.items():
            print(f"  {name:<14} {part.purpose}")
        print("", *(f"example: {example}" for example in examples), sep="\n")
        raise SystemExit(0)
    name, *rest = argv
    if name not in parts:
        raise InputError(f"{verb}: there is no {kind} {name!r}; give {', '.join(parts)} first")
    parts[name].run(rest)
