"""Selection strategies of screening: one class each, registered under its name for ``--choose``.

A new strategy is a class like those below, decorated with :func:`register`. Command line, help, checks, benchmark and
the table in the documentation are generated from the registry.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, Self, TypeVar

import numpy as np

from pyg_clusters.terminal import count_of


@dataclass
class Selection:
    """Frames that a strategy selected."""

    index: np.ndarray  #: Indices of the frames in the pool, in the order of selection, ``[num_selected]``.
    reason: list[str]  #: Reason for each.


class Pool(Protocol):
    """Frames of one composition that a strategy selects among."""

    energy: np.ndarray  #: Predicted energies ``[num_frames]`` in eV.
    spread: np.ndarray | None  #: Their standard deviations ``[num_frames]`` in eV, if the model provides them.
    complete: bool  #: Whether the pool contains all frames of the composition, not only the lowest.
    relaxed: bool  #: Whether the structures were relaxed with the model.

    @property
    def num_atoms(self) -> int:
        """Number of atoms of each frame."""

    def shell_counts(self) -> np.ndarray:
        """Mean number of neighbours of an atom in each shell, ``[num_frames, num_shells]``."""

    def features(self, index: np.ndarray) -> np.ndarray:
        """Features of some frames in the model, ``[num_selected, num_features]``; needs structures."""

    def copies(self, tolerance: float) -> np.ndarray:
        """Index of the lowest frame of which each frame is a copy within a tolerance in Å; needs structures."""


class Strategy(ABC):
    """Strategy of selecting candidates among the frames of one composition.

    Subclasses are dataclasses whose fields are the options of ``screen`` that they use.
    """

    name: ClassVar[str]  #: Value of ``--choose``.
    purpose: ClassVar[str]  #: Description of the selected frames in one line, for the help.
    #: Requirements: ``"spread"``, a model with an uncertainty estimate; ``"shell_counts"``, the shell counts of all
    #: frames.
    needs: ClassVar[tuple[str, ...]] = ()
    #: Size of the pool in multiples of ``--top``: only this number of frames, those with the lowest :meth:`score`, are
    #: held in memory. ``None``: all frames, without structures.
    pool: ClassVar[int | None] = 1
    by_energy: ClassVar[bool] = True  #: Whether candidates are listed by energy rather than in the order of selection.

    @classmethod
    def options(cls) -> list[str]:
        """Names of the options that the strategy uses."""
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]

    @classmethod
    def from_options(cls, options: object) -> Self:
        """Create the strategy from the options of a verb."""
        return cls(**{name: getattr(options, name) for name in cls.options()})

    def score(self, energy: np.ndarray, spread: np.ndarray | None) -> np.ndarray:
        """Score of each frame; the pool holds the frames with the lowest scores."""
        return energy

    @abstractmethod
    def select(self, frames: Pool) -> Selection:
        """Select candidates among the frames of a pool."""


STRATEGIES: dict[str, type[Strategy]] = {}
"""Registered strategies by name."""

S = TypeVar("S", bound=type[Strategy])


def register(strategy: S) -> S:
    """Register a strategy under its name."""
    if strategy.name in STRATEGIES:
        raise ValueError(f"a strategy {strategy.name!r} is already registered")
    STRATEGIES[strategy.name] = strategy
    return strategy


def purposes() -> dict[str, str]:
    """Purpose of each registered strategy by name."""
    return {name: strategy.purpose for name, strategy in STRATEGIES.items()}


@register
@dataclass
class Rank(Strategy):
    """The lowest predicted energies (Modee et al. 2021, section 3.5, first strategy), ties in the order of frames."""

    name = "rank"
    purpose = "the lowest predicted energies"
    top: int

    def select(self, frames: Pool) -> Selection:
        index = np.argsort(frames.energy, kind="stable")[: self.top]
        return Selection(index, [f"lowest {number}" for number in range(1, len(index) + 1)])


@register
@dataclass
class Bins(Strategy):
    """The lowest frame of each equal-width bin of predicted energy (section 3.5, for many distinct isomers).

    The bins range from the lowest to the highest energy. Each includes its lower edge, and the last one both edges. No
    frame is selected from empty bins.
    """

    name = "bins"
    purpose = "the lowest frames of equal-width bins of predicted energy"
    pool = None
    bins: int

    def select(self, frames: Pool) -> Selection:
        energy = np.asarray(frames.energy, dtype=float)
        order = np.argsort(energy, kind="stable")
        if not len(order):
            return Selection(order, [])
        low, width = energy[order[0]], bin_width(energy, self.bins)
        bin_of = np.minimum((energy[order] - low) / (width or 1.0), self.bins - 1).astype(int)
        bins, first = np.unique(bin_of, return_index=True)
        edges = [(n + 1, low + n * width, low + (n + 1) * width) for n in bins]
        return Selection(order[first], [f"lowest of bin {n} from {a:.3f} to {b:.3f} eV" for n, a, b in edges])


def bin_width(energy: np.ndarray, bins: int) -> float:
    """Width in eV of equal bins between the lowest and the highest energy."""
    return float(np.ptp(energy)) / bins


@register
@dataclass
class DescriptorBins(Strategy):
    """The lowest frame of each cell of a grid over the mean shell counts, for comparison with :class:`Bins`.

    Modee et al. 2021 (section 3.5) tried bins of the descriptor and rejected them: they are too broad. The grid has
    the square root of ``bins`` along each of the first two shells; with three shells the third count follows from them.
    """

    name = "descriptor-bins"
    purpose = "the lowest frames of the cells of a grid over the mean descriptor"
    needs = ("shell_counts",)
    pool = None
    bins: int

    def select(self, frames: Pool) -> Selection:
        order = np.argsort(frames.energy, kind="stable")
        if not len(order):
            return Selection(order, [])
        counts = np.asarray(frames.shell_counts(), dtype=float)[order, :2]
        along = max(1, round(self.bins**0.5))
        low, width = counts.min(axis=0), np.ptp(counts, axis=0) / along
        cell = np.minimum((counts - low) / np.where(width > 0, width, 1), along - 1).astype(int)
        cells, first = np.unique(cell, axis=0, return_index=True)
        by_energy = np.argsort(first)
        reason = [f"lowest of the cell {'/'.join(map(str, each + 1))} of the descriptor" for each in cells[by_energy]]
        return Selection(order[first[by_energy]], reason)


@register
@dataclass
class Unique(Strategy):
    """The lowest predicted energies of distinct structures; of copies within ``tolerance`` in Å only the lowest."""

    name = "unique"
    purpose = "the lowest predicted energies of distinct structures"
    pool = 10
    top: int
    tolerance: float

    def select(self, frames: Pool) -> Selection:
        copy_of = frames.copies(self.tolerance)
        copies = np.bincount(copy_of, minlength=len(copy_of))
        order = np.argsort(frames.energy, kind="stable")
        index = order[copy_of[order] == order][: self.top]
        if len(index) < self.top and not frames.complete:
            warnings.warn(
                f"{count_of(len(index), 'distinct structure')} among the {len(copy_of):,} lowest frames of "
                f"{frames.num_atoms} atoms, fewer than {self.top}; increase --pool to find more",
                stacklevel=2,
            )
        frames_of = [count_of(copies[each], "frame") for each in index]
        reason = [f"distinct structure {n} ({count})" for n, count in enumerate(frames_of, start=1)]
        return Selection(index, reason)


@register
@dataclass
class Diverse(Strategy):
    """The lowest energy, then repeatedly the frame farthest from all selected ones in the features of the model.

    Among relaxed frames, only the lowest are considered: as many as a pool contains without relaxation.
    """

    name = "diverse"
    purpose = "low-energy frames that differ most from each other in the features of the model"
    pool = 3
    top: int

    def select(self, frames: Pool) -> Selection:
        low = np.argsort(frames.energy, kind="stable")
        if frames.relaxed:
            low = low[: self.pool * self.top]
        selection = farthest_point_sampling(frames.energy[low], frames.features(low), self.top)
        return Selection(low[selection.index], selection.reason)


def farthest_point_sampling(energy: np.ndarray, features: np.ndarray, top: int) -> Selection:
    """Select the lowest energy, then repeatedly the frame whose features are farthest from all selected ones.

    Example:
        >>> features = np.array([[0.0], [0.1], [0.5], [2.0]])
        >>> farthest_point_sampling(np.array([-3.0, -2.9, -2.8, -2.7]), features, 3).index
        array([0, 3, 2])
    """
    features = np.asarray(features, dtype=float)
    if not len(energy):
        return Selection(np.zeros(0, dtype=int), [])
    index, reason = [int(np.argmin(energy))], ["lowest 1"]
    distance = np.linalg.norm(features - features[index[0]], axis=1)
    selected = np.zeros(len(energy), dtype=bool)
    selected[index] = True
    while len(index) < min(top, len(energy)):
        farthest = int(np.argmax(np.where(selected, -np.inf, distance)))
        reason.append(f"farthest from those before: {distance[farthest]:.3g}")
        index.append(farthest)
        selected[farthest] = True
        distance = np.minimum(distance, np.linalg.norm(features - features[farthest], axis=1))
    return Selection(np.array(index), reason)


@register
@dataclass
class Uncertain(Strategy):
    r"""The lowest confidence bounds :math:`E - k s`: energies that are predicted to be low, or may be low.

    Auer, `"Using confidence bounds for exploitation-exploration trade-offs"
    <https://www.jmlr.org/papers/v3/auer02a.html>`_, J. Mach. Learn. Res. 2002, 3, 397; here for low energies.

    ``spread_weight`` is k: 0 ranks by the energy alone, a large value by the spread s alone.

    Example:
        >>> Uncertain(top=1, spread_weight=2.0).score(np.array([-10.0, -9.9]), np.array([0.01, 0.2]))
        array([-10.02, -10.3 ])
    """

    name = "uncertain"
    purpose = "the lowest predicted energies minus a multiple of their spread"
    needs = ("spread",)
    by_energy = False
    top: int
    spread_weight: float

    def score(self, energy: np.ndarray, spread: np.ndarray | None) -> np.ndarray:
        assert spread is not None
        return energy - self.spread_weight * spread

    def select(self, frames: Pool) -> Selection:
        bounds = self.score(frames.energy, frames.spread)
        index = np.argsort(bounds, kind="stable")[: self.top]
        text = f"eV, the energy - {self.spread_weight:g} spread"
        return Selection(index, [f"lower bound {n}: {bounds[each]:.3f} {text}" for n, each in enumerate(index, 1)])
