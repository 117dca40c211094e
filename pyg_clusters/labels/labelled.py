"""What comes of labelling a frame."""

from dataclasses import dataclass

from ase import Atoms

OF_ANOTHER_ENERGY = ("binding_energy",)
"""What is said of a frame that would contradict a new energy."""


class NotLabelled(RuntimeError):
    """A cluster cannot be labelled, as when a calculation does not converge: the message says why."""


@dataclass(frozen=True)
class Labelled:
    """A frame with its labels, or with the reason why it is set aside."""

    atoms: Atoms
    """The frame, with what it had before."""
    reason: str | None
    """Why it is to be kept apart; none, if its labels are sound."""
    note: str
    """The result in a few words."""


def unlabelled(atoms: Atoms) -> Atoms:
    """A copy of a frame without a cell, without results of another calculation and energies that come of them."""
    copy = atoms.copy()
    copy.cell[:], copy.pbc = 0.0, False
    for name in OF_ANOTHER_ENERGY:
        copy.info.pop(name, None)
    return copy
