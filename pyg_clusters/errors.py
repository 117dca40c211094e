"""Errors that the user can fix: the command line prints them as one line and ends with exit code 2."""


class InputError(ValueError):
    """Something that the user gave cannot be used: the message names the file, the frame, the value, and what to do."""


class MissingExtra(ImportError):
    """An optional dependency is not installed: the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}; install it with: pip install 'pyg-clusters[{extra}]'")


def printable(text: str) -> str:
    r"""Text in which line breaks and other characters that are not printed are written as escapes.

    Example:
        >>> printable("md\n2.xyz")
        'md\\n2.xyz'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def one_line(error: BaseException, length: int = 200) -> str:
    """Message of an error in one line, or its kind if it has none."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def describe_error(error: BaseException) -> str:
    """Kind and message of an error of another package, in one line; where the memory was too small, that.

    Example:
        >>> describe_error(ValueError("Invalid learning rate: -1.0"))
        'ValueError: Invalid learning rate: -1.0'
    """
    if lacks_memory(error):
        return f"there is not enough memory ({one_line(error)})"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, of NumPy or PyTorch too, says that the memory is full."""
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text
