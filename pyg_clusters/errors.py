"""Errors that a user can mend: the command line prints them as one line and ends with exit code 2."""


class InputError(ValueError):
    """Something that the user gave cannot be used: the message names the file, the frame, the value, and what to do."""


class MissingExtra(ImportError):
    """An optional dependency is not installed: the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}; install it with: pip install 'pyg-clusters[{extra}]'")
