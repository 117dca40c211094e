"""Names by which frames are known from run to run."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

from ase import Atoms

from pyg_clusters.frames.electronic_state import INITIAL_ARRAYS, STATE_NAMES

KEY = "label_key"
"""Where the name of a frame is kept in its ``info``."""

DECIMALS = 6


def frame_keys(frames: Iterable[Atoms]) -> Iterator[str]:
    """A name for each frame, by its elements, positions (to 1e-6 Å), charge and spin.

    The same structure has the same name in whatever file and place it is; where it comes more than once it is numbered.

    Example:
        >>> dimers = [Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]]), Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]])]
        >>> list(frame_keys(dimers))
        ['Na2-ae3301d87d04', 'Na2-ae3301d87d04-2']
    """
    seen: Counter[str] = Counter()
    for atoms in frames:
        positions = atoms.positions.round(DECIMALS) + 0.0  # no negative zeros
        stated = [f"{name}={value}" for name, value in sorted(atoms.info.items()) if name.lower() in STATE_NAMES]
        stated += [f"{name}={atoms.arrays[name].tolist()}" for name in INITIAL_ARRAYS if name in atoms.arrays]
        text = f"{atoms.numbers.tolist()} {positions.tolist()} {' '.join(stated)}"
        name = f"{atoms.get_chemical_formula()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"
