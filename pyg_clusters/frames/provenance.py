"""Names under which origins, predictions and values of an earlier geometry are written to a frame.

A value whose name is needed is kept with the prefix ``earlier_`` or ``initial_``, unless that name is also taken.
"""

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from numbers import Integral

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.geometry import find_mic

from pyg_clusters.frames.electronic_state import INITIAL_ARRAYS, STATE_NAMES

SOURCE_FILE: str = "source_file"
"""Name of the file from which a frame was first read."""

SOURCE_FRAME: str = "source_frame"
"""Name of the index of the frame in that file, from 0."""

EARLIER: str = "earlier_"
"""Prefix of a value whose name is needed for a later result."""

INITIAL: str = "initial_"
"""Prefix of a value that belongs to the positions before a relaxation."""

ENERGY_PREDICTION: tuple[str, ...] = ("pred_energy", "pred_flag", "pred_rank", "pred_reason")
"""Prefixes of the names of values that belong to a predicted energy."""

LASTING: frozenset[str] = STATE_NAMES | {
    *("name", "title", "comment", "note", "label", "tag", "tags", "key", "group", "subset", "split", "fold"),
    *("id", "uid", "uuid", "idx", "index", "number", "frame", "seed", "file", "filename", "path", "source"),
    *("system", "formula", "composition", "size", "natoms", "num_atoms", "element", "elements"),
    *("config", "config_type", "dataset", "author", "doi", "url", "license"),
}
"""Names, in lower case, of values of a frame that do not depend on its positions, in addition to those that match
:data:`LASTING_PATTERN`."""

LASTING_PATTERN: re.Pattern[str] = re.compile(r"source_.*|.*_(id|name|file)")

LASTING_ARRAYS: frozenset[str] = LASTING | {
    *("numbers", "positions", "tags", "masses", "isotope", "names", "ids", "type", "types", "species", "symbols"),
    *("residuenames", "residuenumbers", "atomtypes", *INITIAL_ARRAYS),
}
"""Names, in lower case, of values per atom that do not depend on the positions."""

MOVED: float = 1e-3
"""Largest displacement in Å of an atom, relative to the others, at which results of a calculation remain valid."""

PER_FRAME_RESULTS: frozenset[str] = frozenset({"energy", "free_energy", "stress", "dipole", "magmom"})
"""Results of ASE calculators that belong to the frame and not to its atoms, whatever their shape."""


def origin_in(info: Mapping[str, object]) -> tuple[str, int] | None:
    """File and index from which a frame was first read, if its ``info`` has both."""
    file, frame = info.get(SOURCE_FILE), info.get(SOURCE_FRAME)
    if file is None or not isinstance(frame, Integral) or isinstance(frame, bool):
        return None
    return str(file), int(frame)


def stated_origins(
    file: str, numbers: Iterable[int], infos: Sequence[Mapping[str, object]]
) -> tuple[np.ndarray, np.ndarray] | None:
    """File and index from which each frame was first read, ``[num_frames]`` each; ``None`` if always this file."""
    found = [origin_in(info) for info in infos]
    if not any(found):
        return None
    first = [origin or (file, number) for origin, number in zip(found, numbers, strict=True)]
    return np.array([name for name, _ in first], dtype=object), np.array([number for _, number in first])


def set_origin(info: MutableMapping[str, object], file: str, frame: int):
    """Write the file and the index of a frame as its origin, unless an origin is stated already.

    Example:
        >>> info = {}
        >>> set_origin(info, "md.xyz", 7)
        >>> set_origin(info, "predictions.extxyz", 0)
        >>> info
        {'source_file': 'md.xyz', 'source_frame': 7}
    """
    if origin_in(info) is None:
        write_values(info, {SOURCE_FILE: file, SOURCE_FRAME: frame})


def write_values(holder: MutableMapping, values: Mapping[str, object], replaced: tuple[str, ...] = ()):
    """Write values to the ``info`` or ``arrays`` of a frame; values of the same names get the prefix ``earlier_``.

    Args:
        holder: The ``info`` or ``arrays``.
        values: The values.
        replaced: Prefixes of other names to rename, so that for example a ``pred_energy_spread`` of another model does
            not stay next to a new ``pred_energy``.

    Example:
        >>> info = {"pred_energy": -1.0, "pred_energy_spread": 0.1}
        >>> write_values(info, {"pred_energy": -2.0}, replaced=("pred_energy",))
        >>> info
        {'earlier_pred_energy': -1.0, 'earlier_pred_energy_spread': 0.1, 'pred_energy': -2.0}
    """
    for name in [name for name in holder if name in values or str(name).startswith(replaced)]:
        holder.setdefault(EARLIER + name, holder.pop(name))
    holder.update(values)


def outdated(atoms: Atoms) -> str | None:
    """Reason why the results of the calculator of a frame are not its own: they were calculated at other positions.

    A cluster may be shifted, and its atoms moved by lattice vectors.
    """
    results, before = (getattr(atoms.calc, name, None) for name in ("results", "atoms"))
    if not results or before is None:
        return None
    if np.array_equal(before.numbers, atoms.numbers):
        moves = atoms.positions - before.positions
        moves = moves - moves[:1]
        if atoms.pbc.any():
            moves, _ = find_mic(moves, atoms.cell, atoms.pbc)
        if (np.abs(moves) <= MOVED).all():
            return None
    return (
        f"{next(iter(results))!r} was calculated at other positions; calculate it again, or remove the calculator "
        "(atoms.calc = None)"
    )


def at_new_positions(atoms: Atoms, positions: np.ndarray) -> Atoms:
    """Copy of a cluster at new positions in Å, without a cell; values at the old positions get the prefix ``initial_``.

    These are all values, including results of a calculation, that are not known to be independent of positions
    (:data:`LASTING`, :data:`LASTING_ARRAYS`). Charges and magnetic moments from a calculation are left out, since
    ``initial_charges`` and ``initial_magmoms`` are input of calculations in ASE. Names that already start with
    ``initial_`` are unchanged.

    Example:
        >>> dimer = Atoms("Na2", [[0, 0, 0], [0, 0, 3.6]], info={"name": "a", "E": -0.5})
        >>> at_new_positions(dimer, dimer.positions / 2).info
        {'name': 'a', 'initial_E': -0.5}
    """
    info, arrays = dict(atoms.info), {name: values for name, values in atoms.arrays.items() if name != "positions"}
    for name, values in (atoms.calc.results if atoms.calc is not None else {}).items():
        per_atom = name not in PER_FRAME_RESULTS and np.shape(values)[:1] == (len(atoms),)
        (arrays if per_atom else info).setdefault(name, values)
    moved = Atoms(atoms.numbers, positions, info=_renamed(info, LASTING))
    for name, values in _renamed(arrays, LASTING_ARRAYS).items():
        if name != "numbers":
            moved.set_array(name, np.asarray(values))
    return moved


def _renamed(values: Mapping[str, object], lasting: frozenset[str]) -> dict[str, object]:
    renamed = {name: value for name, value in values.items() if _lasts(name, lasting)}
    for name, value in values.items():
        if name not in renamed and INITIAL + name not in INITIAL_ARRAYS:
            renamed.setdefault(INITIAL + name, value)
    return renamed


def _lasts(name: str, lasting: frozenset[str]) -> bool:
    lower = str(name).lower()
    if lower in all_properties:  # a magmom from a calculation belongs to the old positions
        return False
    return lower in lasting or lower.startswith(INITIAL) or LASTING_PATTERN.fullmatch(lower) is not None
