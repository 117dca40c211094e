"""What the parsers of the verbs share."""

import difflib
import re
from collections.abc import Iterator, Sequence

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from pyg_clusters.errors import InputError

UNKNOWN: re.Pattern[str] = re.compile(
    r"[Kk]ey \"?'?([\w.]+)'?\"? is not expected|[Uu]nrecognized arguments: --([\w.-]+)"
    r"|does not accept option '([\w.]+)'"
)
"""How a parser says that it does not know a key."""


def verb_parser(verb: str, description: str, example: str) -> ArgumentParser:
    """A parser whose help ends in an example."""
    return ArgumentParser(
        prog=f"pyg-clusters {verb}",
        description=description,
        epilog=f"example: {example}",
        exit_on_error=False,
        allow_abbrev=False,
    )


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parses the arguments of a verb.

    Raises:
        InputError: In one line, with the nearest valid name where one is unknown.
    """
    try:
        return parser.parse_args(list(argv))
    except ArgumentError as error:
        raise InputError(explain(str(error), parser)) from error


def explain(message: str, parser: ArgumentParser) -> str:
    """A parser's message in one line; an unknown key is answered with the nearest valid one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = " ".join(lines)
    match = UNKNOWN.search(text)
    if match is None:
        return text[:500]
    unknown = next(group for group in match.groups() if group)
    options = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    keys = options | {key.rpartition(".")[2] for key in options}
    near = difflib.get_close_matches(unknown, options, n=1) or difflib.get_close_matches(unknown, keys, n=1)
    return f"unknown option {unknown!r}" + (f"; did you mean {near[0]!r}?" if near else "") + f" ({text[:300]})"


def options_of(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values of options, of ``--name value`` and ``--name=value``."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            yield name.lstrip("-"), value if equals else following
