"""Values of one name in many frames as one array, of which none changes by what stands beside it."""

from collections.abc import Sequence

import numpy as np

EXACT: int = 2**53
"""Largest integer up to which double precision holds every one."""

KINDS: dict[str, str] = {"b": "true or false", "i": "a number", "u": "a number", "f": "a number", "U": "a text"}
"""What an array holds, by the kind of its numpy type."""


def kind_of(value: object) -> str:
    """What a value is: a number, a text, true or false, or something else.

    Example:
        >>> kind_of(np.float64(1.5)), kind_of("1.5"), kind_of(True), kind_of(None)
        ('a number', 'a text', 'true or false', 'something else')
    """
    return KINDS.get(np.asarray(value).dtype.kind, "something else")


def column(values: Sequence) -> np.ndarray:
    """An array ``[num_frames, ...]`` of one value per frame.

    Values of one kind become an array of its type; of several kinds an array of objects, so that numbers beside texts
    are not taken for texts, and truth values not for numbers.

    Raises:
        ValueError: If the values have different shapes.

    Example:
        >>> column([0, 0.73]).dtype, column([1, "a"]).tolist()
        (dtype('float64'), [1, 'a'])
    """
    kinds = {kind_of(value) for value in values}
    if len(kinds) <= 1 and not _rounds(values):
        return np.array(values)
    mixed = np.empty(len(values), dtype=object)
    mixed[:] = values
    return mixed


def concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Columns one after the other, of objects where they are of several kinds (as :func:`column`).

    Raises:
        ValueError: If they have different shapes.

    Example:
        >>> concatenated([np.array([1.5]), np.array(["a"])]).tolist()
        [1.5, 'a']
    """
    filled = [part for part in parts if len(part)] or parts[:1]
    kinds = {KINDS.get(part.dtype.kind, "something else") for part in filled}
    if len(kinds) > 1 or _rounds(filled):
        filled = [part.astype(object) for part in filled]
    return np.concatenate(filled)


def _rounds(values: Sequence) -> bool:
    """Whether integers would be rounded to join others in double precision."""
    types = {np.asarray(value).dtype.kind for value in values}
    return len(types & set("iuf")) > 1 and any(
        np.max(value, initial=0) > EXACT or np.min(value, initial=0) < -EXACT
        for value in values
        if np.asarray(value).dtype.kind in "iu"
    )
