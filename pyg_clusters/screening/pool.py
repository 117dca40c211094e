"""Pools of scored frames, and the selection of candidates from them by a strategy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from torch import nn

from pyg_clusters.composition import composition_names
from pyg_clusters.frames import BadFrame, FrameBlock
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.models.contract import HasFeatures
from pyg_clusters.models.training_domain import domain_of
from pyg_clusters.pairs import shell_counts
from pyg_clusters.screening.candidates import Candidate, Screening, by_composition
from pyg_clusters.strategies import Strategy
from pyg_clusters.structures.duplicates import representatives
from pyg_clusters.structures.superposition import structure_keys

GALLIUM: int = 31  # atomic number
FRAMES_AT_ONCE: int = 64  # number of frames whose features are computed together


@dataclass
class FramePool:
    """The :class:`~pyg_clusters.strategies.Pool` of frames of one composition."""

    energy: np.ndarray
    spread: np.ndarray | None = None
    z: np.ndarray | None = None  #: Atomic numbers ``[num_frames, num_atoms]``, if available.
    pos: np.ndarray | None = None  #: Positions ``[num_frames, num_atoms, 3]`` in Å, if available.
    model: nn.Module | None = None  #: Model that computes the features.
    counts: np.ndarray | None = None  #: Mean shell counts ``[num_frames, num_shells]``, if already computed.
    complete: bool = True
    relaxed: bool = False

    @classmethod
    def of_candidates(
        cls, candidates: Sequence[Candidate], model: nn.Module, complete: bool, relaxed: bool
    ) -> "FramePool":
        """Pool of candidates of one composition."""
        spread = None if candidates[0].spread is None else np.array([candidate.spread for candidate in candidates])
        return cls(
            np.array([candidate.energy for candidate in candidates]),
            spread,
            np.array([candidate.atoms.numbers for candidate in candidates]),
            np.array([candidate.atoms.positions for candidate in candidates]),
            model,
            complete=complete,
            relaxed=relaxed,
        )

    @property
    def num_atoms(self) -> int:
        return self._structures()[0].shape[1]

    def subset(self, index: np.ndarray) -> "FramePool":
        """Pool of some of the frames."""
        optional = (self.spread, self.z, self.pos, self.counts)
        spread, z, pos, counts = (None if array is None else array[index] for array in optional)
        return replace(self, energy=self.energy[index], spread=spread, z=z, pos=pos, counts=counts)

    def shell_counts(self) -> np.ndarray:
        if self.counts is not None:
            return self.counts
        z, pos = self._structures()
        ptr = np.arange(len(z) + 1) * z.shape[1]
        return mean_shell_counts(pos.reshape(-1, 3), ptr, radii_of(self.model))

    def features(self, index: np.ndarray) -> np.ndarray:
        z, pos = self._structures()
        return cluster_features(self.model, z[index], pos[index])

    def copies(self, tolerance: float) -> np.ndarray:
        z, pos = self._structures()
        ptr = np.arange(len(z) + 1) * z.shape[1]
        return representatives(z.ravel(), pos.reshape(-1, 3), ptr, energy=self.energy, tolerance=tolerance)

    def _structures(self) -> tuple[np.ndarray, np.ndarray]:
        if self.z is None or self.pos is None:
            raise ValueError("a strategy that selects among all frames has no structures; set its pool to a number")
        return self.z, self.pos


def radii_of(model: nn.Module | None) -> Sequence[float]:
    """Shell radii in Å of a model, or of the first member of an ensemble.

    For models without shells they are those of gallium, scaled by the covalent radii of the training set.
    """
    domain = domain_of(model)
    model = getattr(model, "members", [model])[0]
    radii = getattr(getattr(model, "model", model), "radii", None)
    if radii is not None:
        return radii
    scale = 1.0 if domain is None else covalent_radii[domain.atomic_numbers].mean() / covalent_radii[GALLIUM]
    return tuple(float(scale * radius) for radius in GALLIUM_RADII)


def mean_shell_counts(pos: np.ndarray, ptr: np.ndarray, radii: Sequence[float] = GALLIUM_RADII) -> np.ndarray:
    """Topological descriptor averaged over the atoms, ``[num_frames, num_shells]``."""
    counts = shell_counts(torch.from_numpy(pos), torch.from_numpy(ptr), radii).numpy()
    return np.add.reduceat(counts, ptr[:-1], axis=0) / np.diff(ptr)[:, None]


@torch.no_grad()
def cluster_features(model: nn.Module | None, z: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """Features of clusters of one composition in a model, ``[num_frames, num_features]``.

    The features are the output of the last hidden layer, averaged over the atoms. For models without ``features``, they
    are the pair distances, sorted within each pair of elements
    (:func:`~pyg_clusters.structures.superposition.structure_keys`).
    """
    pos = pos - pos.mean(axis=1, keepdims=True)
    if not isinstance(model, HasFeatures):
        order = np.argsort(z, axis=1, kind="stable")  # clusters of one composition may list their atoms in any order
        return structure_keys(np.take_along_axis(pos, order[..., None], axis=1), np.sort(z[0]))
    weight, means = next(model.parameters()), []
    for first in range(0, len(pos), FRAMES_AT_ONCE):
        part = slice(first, first + FRAMES_AT_ONCE)
        numbers, positions = torch.from_numpy(z[part]).to(weight.device), torch.from_numpy(pos[part]).to(weight)
        batch = torch.arange(len(numbers), device=weight.device).repeat_interleave(z.shape[1])
        features = model.features(numbers.flatten(), positions.flatten(0, 1), batch)
        means.append(features.view(*numbers.shape, -1).mean(dim=1))
    return torch.cat(means).cpu().numpy()


class ScoredFrames:
    """All scored frames of a screening, and the structures of those that a strategy may select.

    Frames of equal score keep their order. The values that were read from the files are separate from the columns, as
    they may have the same names.

    Args:
        strategy: Strategy that will select among the frames.
        count: Number of frames of each composition, those with the lowest scores, whose structures are kept in memory;
            ``None`` for a strategy without a pool.
        radii: Shell radii in Å, for a strategy without a pool that needs shell counts.
    """

    def __init__(self, strategy: Strategy, count: int | None, radii: Sequence[float] = GALLIUM_RADII):
        self.strategy, self.count, self.radii = strategy, count, radii
        self.columns: dict[str, list[np.ndarray]] = {}
        self.properties: dict[str, list[np.ndarray]] = {}
        self.counts: list[np.ndarray] = []
        self.lowest: dict[tuple[int, str], list[tuple[float, int, _Structure]]] = {}
        self.bad: list[BadFrame] = []
        self.length = 0

    def add(self, block: ScoredBlock):
        """Add the frames of a block."""
        frames, compositions = block.frames, composition_names(block.frames.z, block.frames.ptr)
        values = {
            "file": np.full(len(frames), frames.file),
            "frame": frames.number,
            "size": frames.sizes,
            "composition": compositions,
            "energy": block.energy,
        }
        if block.spread is not None:
            values["spread"] = block.spread
        if block.flags is not None:
            values["flagged"] = block.flags != ""
        for columns, new in ((self.columns, values), (self.properties, frames.properties)):
            for name, value in new.items():
                columns.setdefault(name, []).append(value)
        if self.count is not None:
            self._keep_lowest(block, compositions, self.count)
        elif "shell_counts" in self.strategy.needs:
            self.counts.append(mean_shell_counts(frames.pos, frames.ptr, self.radii))
        self.bad += block.bad
        self.length += len(frames)

    def _keep_lowest(self, block: ScoredBlock, compositions: np.ndarray, count: int):
        score, sizes = self.strategy.score(block.energy, block.spread), block.frames.sizes
        for name in np.unique(compositions).tolist():
            index = np.flatnonzero(compositions == name)
            kind = (int(sizes[index[0]]), name)
            so_far = self.lowest.get(kind, [])
            if len(so_far) == count:
                index = index[score[index] < so_far[-1][0]]
            index = index[np.argsort(score[index], kind="stable")[:count]]
            new = [(float(score[each]), self.length + each, _structure(block.frames, each)) for each in index.tolist()]
            self.lowest[kind] = sorted(so_far + new, key=lambda entry: entry[:2])[:count]

    def screening(self) -> Screening:
        """All frames, with those whose structures were kept as candidates."""
        main, properties = (
            {name: np.concatenate(parts) for name, parts in columns.items()}
            for columns in (self.columns, self.properties)
        )
        types = {"file": str, "frame": int, "size": int, "energy": float, "composition": str}
        values: dict[str, Any] = main or {name: np.zeros(0, dtype) for name, dtype in types.items()}
        screening = Screening(**values, properties=properties, candidates=[], bad=self.bad)
        screening.candidates = [
            screening.candidate(index, f"lowest {number}", *structure)
            for kind in sorted(self.lowest)
            for number, (_, index, structure) in enumerate(self.lowest[kind], start=1)
        ]
        return screening


def select_of_all(
    screening: Screening, strategy: Strategy, counts: Sequence[np.ndarray], blocks: Iterable[FrameBlock]
) -> Screening:
    """Select among all frames by a strategy without a pool, composition by composition.

    Args:
        screening: All frames.
        strategy: The strategy.
        counts: Mean shell counts of the frames, in parts ``[num_frames, num_shells]``, if the strategy needs them.
        blocks: The frames, from which the structures of the selected ones are taken.
    """
    pool = FramePool(screening.energy, screening.spread, counts=np.concatenate(counts) if counts else None)
    candidates: dict[tuple[str, int], Candidate] = {}
    for _, kind in sorted(set(zip(screening.size.tolist(), screening.kind.tolist(), strict=True))):
        index = np.flatnonzero(screening.kind == kind)
        selection = strategy.select(pool.subset(index))
        for each, reason in zip(selection.index, selection.reason, strict=True):
            candidate = screening.candidate(int(index[each]), reason)
            candidates[candidate.file, candidate.frame] = candidate
    for frames in blocks:
        for each, frame in enumerate(frames.number.tolist()):
            if (frames.file, frame) in candidates:
                candidate = candidates[frames.file, frame]
                candidate.atoms, candidate.origin = _structure(frames, each)
    return replace(screening, candidates=list(candidates.values()))


def select_of_pool(
    screening: Screening, strategy: Strategy, model: nn.Module, count: int, relaxed: bool = False
) -> Screening:
    """Select among the candidates of a screening, composition by composition; list them by energy or as selected.

    Candidates that left the geometries of the training set are eligible only if their composition has no others.

    Args:
        screening: All frames, and the pool as candidates.
        strategy: The strategy.
        model: Model that computes the features.
        count: Size of the pool of each composition; a smaller one holds all frames.
        relaxed: Whether the candidates were relaxed with the model.
    """
    candidates = []
    for of_composition in by_composition(screening.candidates):
        pool = [candidate for candidate in of_composition if candidate.inside] or of_composition
        selection = strategy.select(FramePool.of_candidates(pool, model, len(pool) < count, relaxed))
        picks = [
            replace(pool[each], reason=reason) for each, reason in zip(selection.index, selection.reason, strict=True)
        ]
        candidates += sorted(picks, key=lambda candidate: candidate.rank) if strategy.by_energy else picks
    return replace(screening, candidates=candidates)


_Structure = tuple[Atoms, tuple[str, int]]


def _structure(frames: FrameBlock, index: int) -> _Structure:
    """Atoms of a frame of a block, and the file and index where it was first read."""
    files, numbers = frames.origins
    atoms = slice(frames.ptr[index], frames.ptr[index + 1])
    structure = frames.atoms[index] if frames.atoms else Atoms(numbers=frames.z[atoms], positions=frames.pos[atoms])
    return structure, (str(files[index]), int(numbers[index]))
