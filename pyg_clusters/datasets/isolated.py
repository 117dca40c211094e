"""Clusters in periodic boxes, taken out of them."""

import numpy as np
from ase import Atoms

MIN_VACUUM: float = 5.0
"""Fewest Å of empty space between a cluster and its periodic images: well above a bond, below any box of DFT."""


def take_out_of_box(atoms: Atoms) -> Atoms:
    """A copy of the cluster without its cell, joined where the boundary of the cell cuts it.

    Along each axis the widest gap between the atoms and their periodic images is the vacuum; the cluster begins behind
    it.

    Args:
        atoms: A cluster with a periodic cell, or without one: then nothing but the cell is changed.

    Raises:
        ValueError: If there is no vacuum of at least :data:`MIN_VACUUM` along a periodic axis: this is no cluster.

    Example:
        >>> cut = Atoms("Ga2", positions=[[0.1, 5.0, 5.0], [19.5, 5.0, 5.0]], cell=[20.0, 20.0, 20.0], pbc=True)
        >>> round(float(take_out_of_box(cut).get_distance(0, 1)), 3)
        0.6
    """
    free = Atoms(numbers=atoms.numbers, positions=atoms.positions)
    if not (atoms.pbc.any() and atoms.cell.rank == 3):
        return free
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)  # distances between opposite faces of the cell
    fractions = atoms.cell.scaled_positions(atoms.positions)
    for axis in np.flatnonzero(atoms.pbc):
        places = np.sort(fractions[:, axis] % 1.0)
        gaps = np.diff(places, append=places[0] + 1.0)
        widest = gaps.argmax()
        if gaps[widest] * heights[axis] < MIN_VACUUM:
            vacuum = f"{gaps[widest] * heights[axis]:.1f} Å"
            raise ValueError(f"has a periodic cell with only {vacuum} of empty space along axis {axis}: no cluster")
        start = places[(widest + 1) % len(places)]
        fractions[:, axis] = (fractions[:, axis] - start + 1e-9) % 1.0
    free.positions = atoms.cell.cartesian_positions(fractions)
    return free
