"""Check of forces by their work: whether they belong to the energies."""

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import FrameBlock, atoms_of
from pyg_clusters.positions import centred

SMALL_STEP: float = 0.3
"""Largest displacement of an atom in Å between neighbouring frames over which forces are integrated."""

FEWEST_STEPS: int = 10
"""Smallest number of such steps for a check of forces."""

RELATED: float = 0.9
"""Smallest absolute correlation of work and change of the energy at which their ratio is known."""

SAME_UNIT: float = 1.5
"""Largest factor between forces of one unit; one in Bohr instead of Å is 1.89."""


class ForceCheck:
    r"""Check that the forces of a file are minus the gradient of its energies, in sign and unit.

    Between neighbouring frames of a trajectory the energy changes by about
    :math:`-\tfrac{1}{2} \sum_i (\mathbf{F}_i + \mathbf{F}'_i) \cdot \Delta\mathbf{r}_i`. The frames of each file from
    which they were first read are checked together. Files whose neighbouring frames are further apart than
    :data:`SMALL_STEP` are not checked.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, block: FrameBlock, forces: np.ndarray, energies: np.ndarray):
        """Add a block of frames.

        Args:
            block: The frames.
            forces: Their forces in eV/Å, ``[num_atoms, 3]``.
            energies: Their energies in eV, ``[num_frames]``.
        """
        sources = block.origins[0]
        for source in dict.fromkeys(sources.tolist()):
            frames = np.flatnonzero(sources == source)
            atoms, _ = atoms_of(block.ptr, frames)
            step = _small_steps(block.select(frames), forces[atoms], energies[frames])
            if step[0].size:
                name = block.file if source == block.file else f"{block.file}, from {source}"
                self._steps.setdefault(name, []).append(step)

    def finish(self):
        """Check the frames added so far.

        Raises:
            InputError: If the energies change with the work of the forces, but not by about as much.
        """
        for name, steps in self._steps.items():
            work, change = (np.concatenate(parts) for parts in zip(*steps, strict=True))
            _check_work(name, work, change)


def _check_work(name: str, work: np.ndarray, change: np.ndarray):
    """Compare work of the forces and change of the energy ``[num_steps]`` in eV."""
    size = np.hypot(work, change)
    work, change = (part[size > 0] / size[size > 0] for part in (work, change))  # each step has the same weight
    squares = (work**2).sum() * (change**2).sum()
    if len(work) < FEWEST_STEPS or not squares > 0:
        return
    correlation, ratio = (work * change).sum() / squares**0.5, np.median(change[work != 0] / work[work != 0])
    if abs(correlation) > RELATED and not 1 / SAME_UNIT < ratio < SAME_UNIT:
        raise InputError(
            f"{name}: the forces do not belong to the energies: between its neighbouring frames the energies change by "
            f"{ratio:.3g} times the work of the forces ({len(work)} steps, correlation {correlation:.2f}); check the "
            "sign of the forces, whether the energies are potential energies of whole clusters (not per atom), and the "
            "units (energy_unit, length_unit)"
        )


def _small_steps(block: FrameBlock, forces: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Work of the forces and change of the energy in eV, in each small step from a frame of a block to the next."""
    frames = np.flatnonzero(block.sizes[:-1] == block.sizes[1:])
    if not len(frames):
        return np.empty(0), np.empty(0)
    atoms, part = atoms_of(block.ptr, frames)
    after, _ = atoms_of(block.ptr, frames + 1)
    first = part[:-1]
    pos = centred(block.pos, block.ptr)
    moved = pos[after] - pos[atoms]
    work = np.add.reduceat(-0.5 * ((forces[atoms] + forces[after]) * moved).sum(axis=1), first)
    same = np.logical_and.reduceat(block.z[atoms] == block.z[after], first)
    small = same & (np.maximum.reduceat(np.linalg.norm(moved, axis=1), first) < SMALL_STEP)
    return work[small], (energies[frames + 1] - energies[frames])[small]
