"""Command lines built from dataclasses of options."""

import dataclasses
import difflib
import inspect
import re
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse_from_object
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.options import VERBS

Options = TypeVar("Options")

UNKNOWN: re.Pattern[str] = re.compile(
    r"[Kk]ey \"?'?([\w.]+)'?\"? is not expected|[Uu]nrecognized arguments: --([\w.-]+)"
    r"|does not accept option '([\w.]+)'"
)
"""Matches messages of jsonargparse about unknown keys."""

WORDS: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
"""Descriptions of the types of options."""

NAMES: dict[str, str] = {"NoneType": "null", **{kind.__name__: text for kind, text in WORDS.items()}}  # type: ignore[attr-defined]

CLASSES: list[str] = "DART SmoothDART AlloyDART NodeSchNet HDNN LayeredModel Adam AdamW SGD".split()
"""Classes that are often named in recipes, for hints."""


class HelpFormatter(DefaultHelpFormatter):
    """Help of options, with their defaults where informative."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        shown = action.option_strings and not action.required and isinstance(action.default, int | float | str)
        if shown and action.nargs != 0 and action.default not in ("", SUPPRESS) and "default" not in text:
            text += " (default: %(default)s)"
        return text


def parse_options(verb: str, options: type[Options], example: str, argv: Sequence[str]) -> Options:
    """Parse the arguments of a verb into its options.

    Values on the command line override those of ``--config FILE``.

    Raises:
        InputError: If an argument is unknown, missing or invalid, or options contradict each other; the message is one
            line, with the nearest valid name for an unknown one.
    """
    positional = [field.name for field in dataclasses.fields(options) if field.metadata.get("positional")]  # type: ignore[arg-type]
    configured: dict[str, Any] = {}
    for name, value in options_of(argv):
        configured |= _positional_values(value, positional) if name == "config" else {}
    parser = verb_parser(verb, options, example, optional=list(configured))
    try:
        values = vars(parser.parse_args(list(argv)))
    except ArgumentError as error:
        raise InputError(explain(str(error), parser)) from error
    values.pop("config")
    values |= {name: value for name, value in configured.items() if values[name] in (None, [])}
    return options(**values)


def _positional_values(file: str, names: Sequence[str]) -> dict[str, Any]:
    """Values of positional arguments in a configuration file, from which jsonargparse reads only options."""
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error, 200)
        raise InputError(f"--config {file}: cannot be read ({reason})") from error
    if not isinstance(values, dict):
        raise InputError(f"--config {file}: contains no options; write each as a line NAME: VALUE")
    return {name: values[name] for name in names if name in values}


def verb_parser(verb: str, options: type, example: str, optional: Sequence[str] = ()) -> ArgumentParser:
    """Create the parser of a verb.

    Args:
        verb: Name of the verb.
        options: Dataclass of the options. Its docstring is the description, each field is an option, and the docstring
            of a field is its help. Fields with ``metadata={"positional": True}`` are positional arguments;
            ``"choices"`` in the metadata is a function that returns the allowed values and their purposes. Required
            options are listed first, then those of the class itself, then inherited ones.
        example: Arguments of an example, printed at the end of the help.
        optional: Names of positional arguments that may be missing.
    """
    parser = ArgumentParser(
        prog=f"pyg-clusters {verb}",
        description=" ".join((options.__doc__ or "").split()).replace("%", "%%"),
        epilog=f"example: pyg-clusters {verb} {example}".rstrip(),
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        print_config=None,
    )
    helps = {name: text for base in reversed(options.__mro__[:-1]) for name, text in _docs_of_fields(base).items()}
    own = inspect.get_annotations(options)
    types = get_type_hints(options)
    usage, flags = [f"pyg-clusters {verb}"], []
    for field in sorted(
        dataclasses.fields(options), key=lambda field: (not _is_required(field), field.name not in own)
    ):
        kind, required = types[field.name], _is_required(field)
        settings: dict[str, Any] = {"help": helps.get(field.name, "")}
        plain = [each for each in get_args(kind) or [kind] if each is not NoneType]
        of_list = next((each for each in (kind, *plain) if get_origin(each) is list), None)
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
            settings["default"] = _default(field)
        if field.metadata.get("positional"):
            many = "nargs" in settings
            if field.name in optional or not required:
                settings["nargs"] = "*" if many else "?"
            usage.append(field.name.upper() + ("..." if many else ""))
            if not required:
                usage[-1] = f"[{usage[-1]}]"
            parser.add_argument(field.name, metavar=field.name.upper(), **settings)
            continue
        if kind is not bool and get_origin(settings["type"]) is not Literal:
            settings["metavar"] = {int: "N", float: "X"}.get(plain[0], field.name.upper().replace("_", "-"))
        if required:
            flags.append(f"{_flag(field.name)} {settings.get('metavar', 'VALUE')}")
        parser.add_argument(_flag(field.name), **settings, **({"required": True} if required else {}))
    parser.add_argument(
        "--config", action="config", metavar="FILE", help="YAML file of options, with a line NAME: VALUE for each"
    )
    parser.usage = " ".join([*usage, *flags, "[OPTIONS]"])
    return parser


@cache
def _docs_of_fields(options: type) -> dict[str, str]:
    """Docstrings of the fields that a class itself defines, parsed from its source."""
    return {
        parameter.arg_name: " ".join((parameter.description or "").split()).replace("%", "%%").replace("``", "")
        for parameter in parse_from_object(options).params
    }


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def command_words(options: Any) -> list[str]:
    """Shortest command line for a dataclass of options, without those equal to their defaults.

    Example:
        >>> from pyg_clusters.options.training import EnsembleOptions
        >>> command_words(EnsembleOptions(runs=["runs/a", "runs/b"], out="runs/both"))
        ['pyg-clusters', 'ensemble', 'runs/a', 'runs/b', '--out', 'runs/both']
    """
    verb = next(name for name, each in VERBS.items() if each.options is type(options))
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


def explain(message: str, parser: ArgumentParser) -> str:
    """Rephrase a message of a parser in one line, with the nearest valid name for an unknown one."""
    text = " ".join(line.strip() for line in message.splitlines() if line.strip())
    if unknown := UNKNOWN.search(text):
        name = next(group for group in unknown.groups() if group)
        options = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
        keys = [key.rpartition(".")[2] for key in options]
        near = nearest(name, options) or nearest(name, keys)
        return f"unknown option {name!r}{near}" + ("" if near else f" ({text[:300]})")
    if missing := re.search(r"arguments are required: (.+)", text):
        flags = {action.dest: action.option_strings[:1] for action in parser._actions}
        names = [" ".join(flags.get(name, [])) or name.upper() for name in re.split(r",\s*", missing[1])]
        names.sort(key=lambda name: name.startswith("-"))
        return f"{' and '.join(names)} missing; pass --help for the arguments"
    if extra := re.search(r"[Uu]nrecognized arguments: (.+)", text):
        several = " (write several sizes as 14:30:2,40)" if "sizes" in vars(parser.get_defaults()) else ""
        return f"cannot use {extra[1]!r}: the argument before it takes one value{several}; --help lists the arguments"
    if alone := re.search(r"argument (-\S+): expected (at least )?one argument", text):
        return f"{alone[1]} needs a value"
    if flag := re.search(r"argument (-\S+): ignored explicit argument", text):
        return f"{flag[1]} takes no value"
    if "Unexpected config" in text:
        return "the file is not a recipe or configuration (YAML); pyg-clusters new-recipe writes a recipe for frames"
    if unknown := re.search(r'^Parser key "([\w.]+)":.*Expected a dot import path string: (\S+)', text):
        hint = nearest(unknown[2], CLASSES) or "; give its import path, such as pyg_clusters.models.SmoothDART"
        return f"--{unknown[1]}: no class {unknown[2]!r}{hint}"
    if wrong := re.match(r"Parser key \"([\w.]+)\":\s*(?:Expected|Does not validate)", text):
        action = next((action for action in parser._actions if action.dest == wrong[1]), None)
        kind = getattr(action, "_typehint", None)
        value = re.search(r"(?:Got|Given) value: (.*)$", text)
        if kind is not None and value is not None and (words := words_of(kind)):
            name = action.option_strings[0] if action and action.option_strings else wrong[1].upper()
            near = nearest(value[1], [str(each) for each in get_args(kind)]) if get_origin(kind) is Literal else ""
            return f"{name} must be {words}, got {value[1][:200]!r}{near}"
    return _without_types(text)[:500]


def words_of(kind: object) -> str:
    """Description of the values that a type allows; empty if there is no simple one.

    Example:
        >>> words_of(int | None), words_of(Literal["stop", "skip"])
        ('a whole number', 'stop or skip')
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    values = [str(value) for each in kinds if get_origin(each) is Literal for value in get_args(each)]
    words = [WORDS.get(each, "") for each in kinds if each is not NoneType and get_origin(each) is not Literal]
    *first, last = [*words, *dict.fromkeys(values)]
    if "" in words:
        return ""
    return f"{', '.join(first)} or {last}" if first else last


def _without_types(text: str) -> str:
    """Replace names of Python types by words."""
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", lambda match: NAMES.get(match[1], match[1]), text)
    return re.sub(r'Parser key "([\w.]+)":', r"--\1:", text)


def nearest(name: str, known: Iterable[str]) -> str:
    """Hint at the most similar known name; empty if none is similar.

    Example:
        >>> nearest("scren", ["screen", "train"])
        "; did you mean 'screen'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def options_of(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values of options, written as ``--name value`` or ``--name=value``."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            yield name.lstrip("-"), value if equals else following


def parse_sizes(text: str) -> list[int]:
    """Parse numbers of atoms, single or in ranges ``start:stop[:step]`` (``stop`` included), without repetitions.

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
            raise InputError(f"--sizes: there is no size in {part!r}; sizes start at 1 and increase")
        sizes += range(start, stop + 1, step)
    return list(dict.fromkeys(sizes))
