"""Results of labelling a frame."""

from collections.abc import Iterable
from dataclasses import dataclass

from ase import Atoms

from pyg_clusters.frames.join import join_atoms

OLD: tuple[str, ...] = ("energy", "binding_energy", "forces", "set_aside")
"""Keys of another label that would contradict a new one."""


class LabellingError(RuntimeError):
    """A cluster cannot be labelled, as when a calculation does not converge: the message says why."""


@dataclass(frozen=True)
class LabelResult:
    """A frame with its labels, or with the reason for its rejection."""

    atoms: Atoms
    """The frame, with what it had before."""
    reason: str | None
    """Reason for its rejection; none if its labels are sound."""
    note: str
    """The result in a few words."""


def unlabelled(atoms: Atoms, names: Iterable[str] = ()) -> Atoms:
    """A copy of a frame, joined and without a cell, without results of another calculation, and without some values.

    Args:
        atoms: The frame.
        names: Values of frames or atoms that are left out, beside :data:`OLD`.

    Raises:
        InputError: If it is periodic and no isolated cluster.
    """
    copy = join_atoms(atoms)
    copy.calc = None
    copy.cell[:] = 0.0
    for name in (*OLD, *names):
        copy.info.pop(name, None)
        copy.arrays.pop(name, None)
    return copy
