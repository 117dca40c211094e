"""Candidates for a DFT calculation among the frames of trajectories."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms

from pyg_clusters.composition import composition_names
from pyg_clusters.frames import BadFrame, FrameBlock
from pyg_clusters.frames.store import origin_of
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.screening.candidates import Candidate, Screening, by_composition, ranks_of
from pyg_clusters.screening.strategies import Selection


def rank(blocks: Iterable[ScoredBlock], top: int, by: Callable[[ScoredBlock], np.ndarray] | None = None) -> Screening:
    """Picks the lowest predicted energies of each composition (Modee et al. 2021, section 3.5, the first way).

    Only the structures that are among the lowest so far are kept. Of equal energies the earlier frame comes first.

    Args:
        blocks: Scored frames.
        top: Number of candidates per composition.
        by: What is to be low instead of the energy, ``[num_frames]`` of a block.
    """
    table = _Table()
    best: dict[tuple[int, str], list[tuple[float, int, Candidate]]] = {}
    for block in blocks:
        frames = block.frames
        value = block.energy if by is None else by(block)
        compositions = composition_names(frames.z, frames.ptr)
        for name in np.unique(compositions).tolist():
            places = np.flatnonzero(compositions == name)
            kind = (int(frames.sizes[places[0]]), name)
            kept = best.get(kind, [])
            if len(kept) == top:
                places = places[value[places] < kept[-1][0]]
            places = places[np.argsort(value[places], kind="stable")[:top]]
            found = [
                (float(value[place]), table.length + place, _candidate(block, place, table.length))
                for place in places.tolist()
            ]
            best[kind] = sorted(kept + found, key=lambda entry: entry[:2])[:top]
        table.add(block)
    everything = table.screening([])
    candidates = []
    for kind in sorted(best):
        of_kind = everything.composition == kind[1]
        ranks = ranks_of(everything.energy[of_kind])
        place_in_kind = np.cumsum(of_kind) - 1
        for number, (_, place, candidate) in enumerate(best[kind], start=1):
            rank_of_frame = int(ranks[place_in_kind[place]])
            candidates.append(replace(candidate, rank=rank_of_frame, why=f"lowest {number}"))
    return table.screening(candidates)


def choose(
    blocks: Iterable[ScoredBlock],
    way: Callable[[np.ndarray, np.ndarray], Selection],
    reread: Callable[[], Iterable[FrameBlock]],
    describe: Callable[[FrameBlock], np.ndarray] | None = None,
) -> Screening:
    """Chooses among all frames, composition by composition, by energies (bins of them, section 3.5) and some features.

    No structures are held: the files are read again for the frames that were chosen.

    Args:
        blocks: Scored frames.
        way: Chooses by the energies ``[num_frames]`` in eV and the features ``[num_frames, num_features]`` of the
            frames of one composition.
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
    for kind in np.unique(everything.kind):
        places = np.flatnonzero(everything.kind == kind)
        energy = everything.energy[places]
        ranks = ranks_of(energy)
        choice = way(energy, features[places])
        for place, why in zip(choice.places, choice.why, strict=True):
            number = int(places[place])
            file, frame = str(everything.file[number]), int(everything.frame[number])
            values = {name: column[number].item() for name, column in everything.properties.items()}
            spread = None if everything.spread is None else float(everything.spread[number])
            chosen[file, frame] = Candidate(
                file, frame, float(energy[place]), int(ranks[place]), Atoms(), values, number, why, spread
            )
    for frames in reread():
        for place, number in enumerate(frames.number.tolist()):
            if (frames.file, number) in chosen:
                chosen[frames.file, number].atoms = _structure(frames, place)
                chosen[frames.file, number].origin = _origin(frames, place)
    return table.screening(list(chosen.values()))


def choose_again(
    screening: Screening, way: Callable[[list[Candidate]], Selection], lowest_first: bool = True
) -> Screening:
    """Chooses among the candidates of a screening, composition by composition.

    Candidates that left what the model was trained on take part only where no other of their composition is there.

    Args:
        screening: Its candidates are the pool.
        way: Chooses among candidates of one composition.
        lowest_first: Whether the candidates of a composition come by their energies, or in the order of the choice.
    """
    chosen = []
    for everything in by_composition(screening.candidates):
        pool = [candidate for candidate in everything if candidate.inside] or everything
        choice = way(pool)
        picks = [replace(pool[place], why=why) for place, why in zip(choice.places, choice.why, strict=True)]
        chosen += sorted(picks, key=lambda candidate: candidate.rank) if lowest_first else picks
    return replace(screening, candidates=chosen, picked=_picked(len(screening.energy), chosen))


class _Table:
    """What is kept of every frame: what is said of it, and apart from that the values that were read along."""

    def __init__(self):
        self.columns: dict[str, list[np.ndarray]] = {}
        self.properties: dict[str, list[np.ndarray]] = {}
        self.bad: list[BadFrame] = []
        self.length = 0

    def add(self, block: ScoredBlock):
        frames = block.frames
        values = {
            "file": np.full(len(frames), frames.file),
            "frame": frames.number,
            "size": frames.sizes,
            "composition": composition_names(frames.z, frames.ptr),
            "energy": block.energy,
        }
        if block.spread is not None:
            values["spread"] = block.spread
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)
        for name, value in frames.properties.items():
            self.properties.setdefault(name, []).append(value)
        self.bad += block.bad
        self.length += len(frames)

    def screening(self, candidates: list[Candidate]) -> Screening:
        main, properties = (
            {name: np.concatenate(parts) for name, parts in columns.items()}
            for columns in (self.columns, self.properties)
        )
        values: dict[str, Any] = main or _nothing()
        picked = _picked(self.length, candidates)
        return Screening(**values, properties=properties, picked=picked, candidates=candidates, bad=self.bad)


def _picked(length: int, candidates: list[Candidate]) -> np.ndarray:
    picked = np.zeros(length, dtype=bool)
    picked[[candidate.place for candidate in candidates]] = True
    return picked


def _candidate(block: ScoredBlock, place: int, scored: int) -> Candidate:
    """The frame at a place of a block, before which so many frames were scored."""
    frames = block.frames
    return Candidate(
        file=frames.file,
        frame=int(frames.number[place]),
        energy=float(block.energy[place]),
        rank=0,
        atoms=_structure(frames, place),
        properties={name: values[place].item() for name, values in frames.properties.items()},
        place=scored + place,
        spread=None if block.spread is None else float(block.spread[place]),
        origin=_origin(frames, place),
    )


def _origin(frames: FrameBlock, place: int) -> tuple[str, int]:
    files, numbers = origin_of(frames)
    return str(files[place]), int(numbers[place])


def _structure(frames: FrameBlock, place: int) -> Atoms:
    if frames.atoms:
        return frames.atoms[place]
    atoms = slice(frames.ptr[place], frames.ptr[place + 1])
    return Atoms(numbers=frames.z[atoms], positions=frames.pos[atoms])


def _nothing() -> dict[str, np.ndarray]:
    return {
        "file": np.zeros(0, str),
        "frame": np.zeros(0, int),
        "size": np.zeros(0, int),
        "energy": np.zeros(0),
        "composition": np.zeros(0, str),
    }
