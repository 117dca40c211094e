"""Bounds on what is read as one cluster, so that a small compressed file cannot fill the memory."""

import os

from pyg_clusters.errors import InputError

VARIABLE: str = "PYG_CLUSTERS_MAX_ATOMS"
"""Environment variable that sets the bound."""

MAX_ATOMS: int = 50_000
"""Default number of atoms that a frame may have."""


def max_atoms() -> int:
    """Number of atoms that a frame may have: :data:`MAX_ATOMS`, or the environment variable :data:`VARIABLE`.

    Raises:
        InputError: If the variable is not a positive number.
    """
    text = os.environ.get(VARIABLE, str(MAX_ATOMS))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{VARIABLE} must be a positive number of atoms, got {text!r}")
    return int(text)


def max_line() -> int:
    """Number of bytes that a line may have: values of all atoms may stand in one."""
    return 200 * max_atoms()


def max_frame() -> int:
    """Number of bytes that the text of a frame may have."""
    return 2000 * max_atoms()


def lifted_by() -> str:
    """The advice that ends a message about a bound."""
    return f"if the file is sound, set the environment variable {VARIABLE} higher (now {max_atoms()})"
