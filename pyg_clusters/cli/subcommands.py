"""Verbs of several parts, as ``pyg-clusters generate sblda``."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pyg_clusters.errors import InputError


class Part(NamedTuple):
    """What the word after a verb calls.

    Attributes:
        run: The function, called with the arguments after the word.
        purpose: What it does, for the help.
    """

    run: Callable[[Sequence[str]], None]
    purpose: str


def run_part(verb: str, kind: str, parts: Mapping[str, Part], examples: Sequence[str], argv: Sequence[str]):
    """Calls the part of a verb that is named first among the arguments, or prints which there are.

    Args:
        verb: The verb.
        kind: What the parts are, one word.
        parts: By name.
        examples: Commands.
        argv: Arguments after the verb.

    Raises:
        InputError: If there is no such part.
        SystemExit: After the help.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: pyg-clusters {verb} {kind.upper()} [ARGUMENTS]    ({kind.upper()} --help tells the arguments)\n")
        for name, part in parts.items():
            print(f"  {name:<14} {part.purpose}")
        print("", *(f"example: {example}" for example in examples), sep="\n")
        raise SystemExit(0)
    name, *rest = argv
    if name not in parts:
        raise InputError(f"{verb}: there is no {kind} {name!r}; give {', '.join(parts)} first")
    parts[name].run(rest)
