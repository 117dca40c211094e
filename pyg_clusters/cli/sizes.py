"""Numbers of atoms as they are given on the command line."""

import re

from pyg_clusters.errors import InputError


def parse_sizes(text: str) -> list[int]:
    """Numbers of atoms from single numbers and ranges ``start:stop[:step]`` (``stop`` included), each once, in order.

    Example:
        >>> parse_sizes("14:20:2,40")
        [14, 16, 18, 20, 40]

    Raises:
        InputError: If a part is no number or range, a range is empty, or a size is below 1.
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
