"""Command lines built from dataclasses of options."""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from pyg_clusters.errors import InputError

Options = TypeVar("Options")

UNKNOWN: re.Pattern[str] = re.compile(
    r"[Kk]ey \"?'?([\w.]+)'?\"? is not expected|[Uu]nrecognized arguments: --([\w.-]+)"
    r"|does not accept option '([\w.]+)'"
)
"""Matches the messages of jsonargparse about unknown keys."""


def parse_options(verb: str, options: type[Options], example: str, argv: Sequence[str]) -> Options:
    """Parse the arguments of a verb into its options.

    Args:
        verb: Name of the verb, for the help.
        options: A dataclass: its docstring is the description, each field an option, the docstring of a field its help.
            Fields with ``metadata={"positional": True}`` are positional arguments; ``"choices"`` in it is a function
            that returns the values and their purposes.
        example: A command, printed at the end of the help.
        argv: Arguments after the verb.

    Raises:
        InputError: In one line, with the nearest valid name where one is unknown, or if the options contradict each
            other.
    """
    parser = verb_parser(verb, " ".join((options.__doc__ or "").split()), example)
    _add_fields(parser, options)
    return options(**vars(parse(parser, argv)))


def verb_parser(verb: str, description: str, example: str) -> ArgumentParser:
    """Create a parser whose help ends with an example."""
    return ArgumentParser(
        prog=f"pyg-clusters {verb}",
        description=description,
        epilog=f"example: {example}",
        exit_on_error=False,
        allow_abbrev=False,
    )


def _add_fields(parser: ArgumentParser, options: type):
    """Add an argument to a parser for each field of a dataclass, inherited ones included."""
    helps = {
        parameter.arg_name: " ".join((parameter.description or "").split()).replace("%", "%%").replace("``", "")
        for base in reversed(options.__mro__[:-1])
        for parameter in parse_from_object(base).params
    }
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = types[field.name]
        settings: dict[str, Any] = {"help": helps.get(field.name, "")}
        required = field.default is field.default_factory is dataclasses.MISSING
        of_list = next((each for each in (kind, *get_args(kind)) if get_origin(each) is list), None)
        if kind is bool:
            settings["action"] = "store_true"
        elif "choices" in field.metadata:
            choices = field.metadata["choices"]()
            texts = "; ".join(f"{name}: {text}" for name, text in choices.items()).replace("%", "%%")
            settings |= {"type": Literal[tuple(choices)], "help": f"{settings['help']}: {texts}"}
        elif of_list is not None:
            settings |= {"type": get_args(of_list)[0], "nargs": "+"}
        else:
            settings["type"] = kind
        if not required and kind is not bool:
            settings["default"] = (
                field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            )
        if field.metadata.get("positional"):
            parser.add_argument(field.name, **settings)
        else:
            parser.add_argument(_flag(field.name), **settings, **({"required": True} if required else {}))


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def command_words(verb: str, options: Any) -> list[str]:
    """The shortest command line that gives a dataclass of options: those equal to their defaults are left out.

    Example:
        >>> from pyg_clusters.options.merge import MergeOptions
        >>> command_words("merge", MergeOptions(parts=["a.csv", "b.csv"], out="all.csv"))
        ['pyg-clusters', 'merge', 'a.csv', 'b.csv', '--out', 'all.csv']
    """
    words, flags = ["pyg-clusters", *verb.split()], []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        values = [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
        if field.metadata.get("positional"):
            words += values
            continue
        if value is None or value == _default(field):
            continue
        flags += [_flag(field.name)] if value is True else [_flag(field.name), *values]
    return words + flags


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse the arguments of a verb.

    Raises:
        InputError: In one line, with the nearest valid name where one is unknown.
    """
    try:
        return parser.parse_args(list(argv))
    except ArgumentError as error:
        raise InputError(explain(str(error), parser)) from error


def explain(message: str, parser: ArgumentParser) -> str:
    """Shorten a message of a parser to one line, with the nearest valid name where a key is unknown."""
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
    """Names and values of the options ``--name value`` and ``--name=value``."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            yield name.lstrip("-"), value if equals else following


def parse_sizes(text: str) -> list[int]:
    """Parse numbers of atoms: single numbers and ranges ``start:stop[:step]`` (``stop`` included), without repeats.

    Example:
        >>> parse_sizes("14:20:2,40")
        [14, 16, 18, 20, 40]

    Raises:
        InputError: If a part is not a number or a range, a range is empty, or a size is below 1.
    """
    sizes: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?::(\d+)(?::(\d+))?)?\s*", part)
        if match is None:
            raise InputError(f"--sizes: {part!r} is neither a number nor start:stop or start:stop:step, as in 14:30:2")
        start, stop, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if start < 1 or stop < start or step < 1:
            raise InputError(f"--sizes: there is no size in {part!r}; sizes begin at 1 and grow")
        sizes += range(start, stop + 1, step)
    return list(dict.fromkeys(sizes))
