"""Names by which frames are known from run to run."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

from ase import Atoms

KEY = "label_key"
"""Where the name of a frame is kept in its ``info``."""

DECIMALS = 6


def frame_keys(frames: Iterable[Atoms]) -> Iterator[str]:
    """A name for each frame, by its elements, positions (to 1e-6 Å) and charge.

    The same structure has the same name in whatever file and place it is; where it comes more than once it is numbered.

    Example:
        >>> dimers = [Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]]), Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]])]
        >>> list(frame_keys(dimers))
        ['Na2-ae3301d87d04', 'Na2-ae3301d87d04-2']
    """
    seen: Counter[str] = Counter()
    for atoms in frames:
        positions = atoms.positions.round(DECIMALS) + 0.0  # no negative zeros
        text = f"{atoms.numbers.tolist()} {positions.tolist()} {atoms.info.get('charge', '')}"
        name = f"{atoms.get_chemical_formula()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"
