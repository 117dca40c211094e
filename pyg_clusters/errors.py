"""Errors that the user can fix: the command line prints them in one line and exits with code 2."""

from collections.abc import Sequence


class InputError(ValueError):
    """Invalid input: the message names the file, the frame, the value and the remedy."""


class MissingProperty(InputError):
    """The frames have no property of a requested name."""


class MissingExtra(ImportError):
    """Missing optional dependency: the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}; install it with: pip install 'pyg-clusters[{extra}]'")


def check_choice(name: str, value: str, choices: Sequence[str] = ("stop", "skip")):
    """Check an argument with a few possible values.

    Raises:
        InputError: If it has another value.
    """
    if value not in choices:
        raise InputError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def printable(text: str) -> str:
    r"""Text with line breaks and other non-printable characters escaped.

    Example:
        >>> printable("md\n2.xyz")
        'md\\n2.xyz'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def one_line(error: BaseException, length: int = 200) -> str:
    """Message of an error in one line, or its type if it has none."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def describe_error(error: BaseException) -> str:
    """Type and message of an error of another package in one line, or that memory is exhausted.

    Example:
        >>> describe_error(ValueError("Invalid learning rate: -1.0"))
        'ValueError: Invalid learning rate: -1.0'
    """
    if lacks_memory(error):
        return f"there is not enough memory ({one_line(error)})"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, including those of NumPy and PyTorch, means that memory is exhausted."""
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text
