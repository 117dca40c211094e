"""Options of the verbs as dataclasses, shared by Python and the command line, and the table of the verbs."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

Options = TypeVar("Options")


class Verb(NamedTuple):
    """A verb of the command line, or a subcommand of one.

    Attributes:
        purpose: Purpose, for the list of verbs.
        function: Import path of its function, which is called with the options. Its result is printed, with its method
            ``print`` or as text, after the frames in its attribute ``bad``; an iterator item by item.
        text: Import path of a function that converts result and options to text, if the result does not print itself.
        example: Arguments of an example, printed at the end of the help.
        options: Dataclass of its options.
        help: Help of a verb whose function parses the arguments itself.
        kind: Word for the subcommands of a verb that has some.
    """

    purpose: str
    function: str = ""
    example: str = ""
    options: type | None = None
    text: str = ""
    help: str = ""
    kind: str = ""


VERBS: dict[str, Verb] = {}
"""The verbs by name, and subcommands as ``label energy``; the modules of this package fill it when imported."""


def verb(
    name: str, function: str, purpose: str, example: str, text: str = ""
) -> Callable[[type[Options]], type[Options]]:
    """Register a dataclass as the options of a verb; see :class:`Verb`."""

    def register(options: type[Options]) -> type[Options]:
        VERBS[name] = Verb(purpose, function, example, options, text)
        return options

    return register
