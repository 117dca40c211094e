"""Candidates for a DFT calculation among the frames of trajectories."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from pyg_clusters.frames import BadFrame
from pyg_clusters.inference.scoring import ScoredBlock


@dataclass
class Candidate:
    """A frame that was picked.

    Attributes:
        file: The file that it came from.
        frame: Its number in the file, from 0.
        energy: Predicted energy in eV.
        rank: 1 for the lowest of its cluster size.
        atoms: The structure.
        properties: Values that were read along.
    """

    file: str
    frame: int
    energy: float
    rank: int
    atoms: Atoms
    properties: dict[str, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of atoms."""
        return len(self.atoms)


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
        candidates: By size, the lowest energy first.
        bad: Frames that were left out.
    """

    file: np.ndarray
    frame: np.ndarray
    size: np.ndarray
    energy: np.ndarray
    properties: dict[str, np.ndarray]
    picked: np.ndarray
    candidates: list[Candidate]
    bad: list[BadFrame]


def rank(blocks: Iterable[ScoredBlock], top: int) -> Screening:
    """Picks the lowest predicted energies of each cluster size (Modee et al. 2021, section 3.5, the first way).

    Only the structures that are among the lowest so far are kept. Of equal energies the earlier frame comes first.

    Args:
        blocks: Scored frames.
        top: Number of candidates per cluster size.
    """
    columns: dict[str, list[np.ndarray]] = {}
    bad: list[BadFrame] = []
    lowest: dict[int, list[tuple[float, int, Candidate]]] = {}
    scored = 0
    for block in blocks:
        bad += block.bad
        frames = block.frames
        values = {
            "file": np.full(len(frames), frames.file),
            "frame": frames.number,
            "size": frames.sizes,
            "energy": block.energy,
            **frames.properties,
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
        for size in np.unique(frames.sizes).tolist():
            places = np.flatnonzero(frames.sizes == size)
            places = places[np.argsort(block.energy[places], kind="stable")[:top]]
            pool = lowest.get(size, []) + [_entry(block, int(place), scored) for place in places]
            lowest[size] = sorted(pool, key=lambda entry: entry[:2])[:top]
        scored += len(frames)

    table = {name: np.concatenate(parts) for name, parts in columns.items()} if columns else _nothing()
    picked = np.zeros(scored, dtype=bool)
    candidates = []
    for size in sorted(lowest):
        for number, (_, place, candidate) in enumerate(lowest[size], start=1):
            picked[place] = True
            candidate.rank = number
            candidates.append(candidate)
    main = {name: table.pop(name) for name in ("file", "frame", "size", "energy")}
    return Screening(**main, properties=table, picked=picked, candidates=candidates, bad=bad)


def _entry(block: ScoredBlock, place: int, scored: int) -> tuple[float, int, Candidate]:
    frames = block.frames
    atoms = slice(frames.ptr[place], frames.ptr[place + 1])
    energy = float(block.energy[place])
    candidate = Candidate(
        file=frames.file,
        frame=int(frames.number[place]),
        energy=energy,
        rank=0,
        atoms=frames.atoms[place] if frames.atoms else Atoms(numbers=frames.z[atoms], positions=frames.pos[atoms]),
        properties={name: values[place].item() for name, values in frames.properties.items()},
    )
    return energy, scored + place, candidate


def _nothing() -> dict[str, np.ndarray]:
    return {"file": np.zeros(0, str), "frame": np.zeros(0, int), "size": np.zeros(0, int), "energy": np.zeros(0)}
