"""Candidates for a DFT calculation among the frames of trajectories."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms

from pyg_clusters.frames import BadFrame, FrameBlock
from pyg_clusters.inference.choosing import Choice
from pyg_clusters.inference.scoring import ScoredBlock


@dataclass
class Candidate:
    """A frame that was picked.

    Attributes:
        file: The file that it came from.
        frame: Its number in the file, from 0.
        energy: Predicted energy in eV.
        rank: 1 for the lowest of all frames of its cluster size.
        atoms: The structure.
        properties: Values that were read along.
        place: Its place among all frames that were scored.
        why: What it was chosen for.
    """

    file: str
    frame: int
    energy: float
    rank: int
    atoms: Atoms
    properties: dict[str, float] = field(default_factory=dict)
    place: int = 0
    why: str = ""

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
        candidates: By size, then in the order of the choice: the lowest energy first.
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
    table = _Table()
    best: dict[int, list[tuple[float, int, Candidate]]] = {}
    for block in blocks:
        frames = block.frames
        for size in np.unique(frames.sizes).tolist():
            places = np.flatnonzero(frames.sizes == size)
            places = places[np.argsort(block.energy[places], kind="stable")[:top]]
            pool = best.get(size, []) + [_entry(block, int(place), table.length) for place in places]
            best[size] = sorted(pool, key=lambda entry: entry[:2])[:top]
        table.add(block)
    candidates = []
    for size in sorted(best):
        for number, (_, _, candidate) in enumerate(best[size], start=1):
            candidates.append(replace(candidate, rank=number, why=f"lowest {number}"))
    return table.screening(candidates)


def choose(
    blocks: Iterable[ScoredBlock],
    way: Callable[[np.ndarray, np.ndarray], Choice],
    reread: Callable[[], Iterable[FrameBlock]],
    describe: Callable[[FrameBlock], np.ndarray] | None = None,
) -> Screening:
    """Chooses among all frames, size by size, by their energies (bins of them, section 3.5) and some features.

    No structures are held: the files are read again for the frames that were chosen.

    Args:
        blocks: Scored frames.
        way: Chooses by the energies ``[num_frames]`` in eV and the features ``[num_frames, num_features]`` of the
            frames of one size.
        reread: Reads the frames anew, with whatever belongs to a candidate.
        describe: Features ``[num_frames, num_features]`` of the frames of a block; none by default.
    """
    table = _Table()
    described = []
    for block in blocks:
        table.add(block)
        described.append(describe(block.frames) if describe else np.zeros((len(block.frames), 0)))
    everything = table.screening([])
    features = np.concatenate(described) if described else np.zeros((0, 0))
    chosen: dict[tuple[str, int], Candidate] = {}
    for size in np.unique(everything.size):
        places = np.flatnonzero(everything.size == size)
        energy = everything.energy[places]
        ranks = np.empty(len(places), dtype=int)
        ranks[np.argsort(energy, kind="stable")] = np.arange(1, len(places) + 1)
        choice = way(energy, features[places])
        for place, why in zip(choice.places, choice.why, strict=True):
            number = int(places[place])
            file, frame = str(everything.file[number]), int(everything.frame[number])
            values = {name: column[number].item() for name, column in everything.properties.items()}
            rank_of_frame = int(ranks[place])
            chosen[file, frame] = Candidate(
                file, frame, float(energy[place]), rank_of_frame, Atoms(), values, number, why
            )
    for frames in reread():
        for place, number in enumerate(frames.number.tolist()):
            if (frames.file, number) in chosen:
                chosen[frames.file, number].atoms = _structure(frames, place)
    return table.screening(list(chosen.values()))


def choose_again(screening: Screening, way: Callable[[list[Candidate]], Choice]) -> Screening:
    """Chooses among the candidates of a screening, size by size.

    Args:
        screening: Its candidates are the pool.
        way: Chooses among candidates of one size.
    """
    chosen = []
    for size in sorted({candidate.size for candidate in screening.candidates}):
        pool = [candidate for candidate in screening.candidates if candidate.size == size]
        choice = way(pool)
        picks = [replace(pool[place], why=why) for place, why in zip(choice.places, choice.why, strict=True)]
        chosen += sorted(picks, key=lambda candidate: candidate.rank)
    return replace(screening, candidates=chosen, picked=_picked(len(screening.energy), chosen))


class _Table:
    """What is kept of every frame."""

    def __init__(self):
        self.columns: dict[str, list[np.ndarray]] = {}
        self.bad: list[BadFrame] = []
        self.length = 0

    def add(self, block: ScoredBlock):
        frames = block.frames
        values = {
            "file": np.full(len(frames), frames.file),
            "frame": frames.number,
            "size": frames.sizes,
            "energy": block.energy,
            **frames.properties,
        }
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)
        self.bad += block.bad
        self.length += len(frames)

    def screening(self, candidates: list[Candidate]) -> Screening:
        table = {name: np.concatenate(parts) for name, parts in self.columns.items()} if self.columns else _nothing()
        main = {name: table.pop(name) for name in ("file", "frame", "size", "energy")}
        picked = _picked(self.length, candidates)
        return Screening(**main, properties=table, picked=picked, candidates=candidates, bad=self.bad)


def _picked(length: int, candidates: list[Candidate]) -> np.ndarray:
    picked = np.zeros(length, dtype=bool)
    picked[[candidate.place for candidate in candidates]] = True
    return picked


def _entry(block: ScoredBlock, place: int, scored: int) -> tuple[float, int, Candidate]:
    frames = block.frames
    energy = float(block.energy[place])
    candidate = Candidate(
        file=frames.file,
        frame=int(frames.number[place]),
        energy=energy,
        rank=0,
        atoms=_structure(frames, place),
        properties={name: values[place].item() for name, values in frames.properties.items()},
        place=scored + place,
    )
    return energy, scored + place, candidate


def _structure(frames: FrameBlock, place: int) -> Atoms:
    if frames.atoms:
        return frames.atoms[place]
    atoms = slice(frames.ptr[place], frames.ptr[place + 1])
    return Atoms(numbers=frames.z[atoms], positions=frames.pos[atoms])


def _nothing() -> dict[str, np.ndarray]:
    return {"file": np.zeros(0, str), "frame": np.zeros(0, int), "size": np.zeros(0, int), "energy": np.zeros(0)}
