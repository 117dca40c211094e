"""What a screening found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase import Atoms

from pyg_clusters.composition import comparable
from pyg_clusters.frames import BadFrame


@dataclass
class Candidate:
    """A frame that was picked.

    Attributes:
        file: The file that it came from.
        frame: Its number in the file, from 0.
        energy: Predicted energy in eV.
        rank: 1 for the lowest of all frames of its composition, or of those that were relaxed.
        atoms: The structure.
        properties: Values that were read along.
        place: Its place among all frames that were scored.
        why: What it was chosen for.
        spread: How sure the model is of the energy, a standard deviation in eV, where it tells.
        relaxation: How the structure was relaxed, if it was: ``initial_pred_energy`` is the energy in eV that was
            predicted of the frame as it stands in the file; ``energy``, ``spread`` and ``atoms`` are of the relaxed
            structure, and ``left_range`` tells how that is outside what the model was trained on (empty: it is inside).
        origin: File and index where the frame was first read, if that is another one.
    """

    file: str
    frame: int
    energy: float
    rank: int
    atoms: Atoms
    properties: dict[str, float] = field(default_factory=dict)
    place: int = 0
    why: str = ""
    spread: float | None = None
    relaxation: dict[str, float | int | bool | str] = field(default_factory=dict)
    origin: tuple[str, int] | None = None

    @property
    def source_file(self) -> str:
        """File in which the frame was first read."""
        return self.origin[0] if self.origin else self.file

    @property
    def source_frame(self) -> int:
        """Index of the frame in that file, from 0."""
        return self.origin[1] if self.origin else self.frame

    @property
    def size(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    @property
    def composition(self) -> str:
        """Formula."""
        return self.atoms.get_chemical_formula()

    @property
    def inside(self) -> bool:
        """Whether the structure is inside what the model was trained on, as far as a relaxation tells."""
        return not self.relaxation.get("left_range")


@dataclass
class Screening:
    """All frames that were scored, and the candidates.

    Attributes:
        file: File of each frame, ``[num_frames]``.
        frame: Its number in the file, from 0, ``[num_frames]``.
        size: Number of atoms, ``[num_frames]``.
        energy: Predicted energy in eV, ``[num_frames]``.
        properties: Values that were read along, ``[num_frames]`` each.
        picked: Whether it is a candidate, ``[num_frames]``.
        candidates: By size and composition, then in the order of the choice: the lowest energy first.
        bad: Frames that were left out.
        spread: How sure the model is of each energy in eV, ``[num_frames]``, where it tells.
        composition: Formula of each frame, ``[num_frames]``; none where all are of one element.
        num_left_range: Number of frames that left the geometries which the model was trained on while they were
            relaxed.
    """

    file: np.ndarray
    frame: np.ndarray
    size: np.ndarray
    energy: np.ndarray
    properties: dict[str, np.ndarray]
    picked: np.ndarray
    candidates: list[Candidate]
    bad: list[BadFrame]
    spread: np.ndarray | None = None
    composition: np.ndarray | None = None
    num_left_range: int = 0

    @cached_property
    def kind(self) -> np.ndarray:
        """What the frames are compared within, ``[num_frames]``: sizes, or compositions where there are alloys."""
        return self.size if self.composition is None else comparable(self.composition, self.size)

    def kind_of(self, candidate: Candidate) -> int | str:
        """The kind of a candidate, as :attr:`kind` has those of the frames."""
        return candidate.size if self.kind.dtype.kind != "U" else candidate.composition


def by_composition(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """The candidates of each composition, in their order; the smallest clusters first."""
    kinds: dict[tuple[int, str], list[Candidate]] = {}
    for candidate in candidates:
        kinds.setdefault((candidate.size, candidate.composition), []).append(candidate)
    return [kinds[kind] for kind in sorted(kinds)]


def ranks_of(energy: np.ndarray) -> np.ndarray:
    """Rank of each energy, from 1; of equal ones the earlier comes first.

    Example:
        >>> ranks_of(np.array([-1.0, -3.0, -2.0, -3.0]))
        array([4, 1, 3, 2])
    """
    ranks = np.empty(len(energy), dtype=int)
    ranks[np.argsort(energy, kind="stable")] = np.arange(1, len(energy) + 1)
    return ranks
