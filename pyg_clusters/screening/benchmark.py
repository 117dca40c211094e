"""What choosing frames by a model's predictions is worth, where the true energies are known (section 3.5 of Modee et
al. 2021, and past it).

The true energy of a frame is that of the isomer which a DFT optimisation of it would give: for the shipped frames the
energy of the minimum that each quenches to. Two frames are of distinct isomers if their true energies differ (by more
than :data:`SAME_ENERGY`) and, where the minima are known, their structures differ, too. Everything is for the frames of
one composition; energies are in eV per cluster.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import kendalltau, spearmanr

from pyg_clusters.units import KCAL_PER_MOL, MEV

SAME_ENERGY: float = 1e-3
"""Frames of one isomer have true energies that differ by no more than this, in eV per cluster."""

LOWEST: int = 50
"""Number of frames, the lowest by true energy, that are to be found."""

WINDOW: float = 0.5
"""Isomers this far above the lowest in eV are counted."""

DRAWS: int = 200
"""Random choices that are averaged over."""


@dataclass
class Ranking:
    """How well predictions rank the frames of a composition.

    Attributes:
        size: Number of atoms.
        frames: Number of frames.
        spearman: Rank correlation with the true energies.
        kendall: Kendall's tau-b with them.
        mae_kcal_mol: Mean absolute difference from them, per cluster.
        mae_own_kcal_mol: The same from the energies of the frames themselves; not-a-number where they are not known.
        rank_of_lowest: Rank by prediction, from 1, of the first frame of the lowest isomer.
        recall: Share of the :data:`LOWEST` frames (fewer if there are no more) by true energy among as many
            predicted, and among four times as many (for 200 of 1,000 frames a random choice has 0.2).
        recall_of_four: The latter.
        composition: Formula, where there are alloys.
    """

    size: int
    frames: int
    spearman: float
    kendall: float
    mae_kcal_mol: float
    mae_own_kcal_mol: float
    rank_of_lowest: int
    recall: float
    recall_of_four: float
    composition: str = ""


@dataclass
class StrategyScore:
    """What a way of choosing is worth.

    Attributes:
        size: Number of atoms.
        way: The way.
        runs: Number of frames that are chosen: of DFT calculations.
        regret_kcal_mol: Lowest true energy among the chosen less that of all frames, per cluster.
        regret_mev_per_atom: The same per atom.
        recall: Share of the :data:`LOWEST` frames by true energy that are among the chosen.
        enrichment: The same share divided by what as many random frames have on average.
        distinct: Number of isomers among the chosen, divided by the number of chosen.
        distinct_structures: The same, isomers told apart by the structures of their minima alone; not-a-number where
            these are not known.
        low_isomers: Number of isomers among the chosen that are within :data:`WINDOW` of the lowest of all frames.
        low_isomers_share: Their share of those among all frames.
        composition: Formula, where there are alloys.
    """

    size: int
    way: str
    runs: int
    regret_kcal_mol: float
    regret_mev_per_atom: float
    recall: float
    enrichment: float
    distinct: float
    distinct_structures: float
    low_isomers: float
    low_isomers_share: float
    composition: str = ""


def isomers_by_energy(energy: np.ndarray, tolerance: float = SAME_ENERGY) -> np.ndarray:
    """Numbers of isomers ``[num_frames]``: frames of one are within a tolerance of its lowest energy.

    By chance distinct isomers have equal energies, too: the number of isomers is a lower bound.

    Args:
        energy: True energies ``[num_frames]`` in eV.
        tolerance: In eV.

    Example:
        >>> isomers_by_energy(np.array([-9.0, -8.0, -9.0004, -8.9985]))
        array([0, 2, 0, 1])
    """
    energy = np.asarray(energy, dtype=float)
    isomer = np.zeros(len(energy), dtype=int)
    number, low = -1, -np.inf
    for place in np.argsort(energy, kind="stable"):
        if energy[place] - low > tolerance:
            number, low = number + 1, energy[place]
        isomer[place] = number
    return isomer


def joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Numbers ``[num_frames]`` of isomers that are the same if either of two numberings has them the same.

    Example:
        >>> joined(np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 0]))
        array([0, 0, 0, 1, 0])
    """
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    num_nodes = len(a) + len(b)
    links = coo_array((np.ones(len(a)), (a, len(a) + b)), shape=(num_nodes, num_nodes))
    return np.unique(connected_components(links, directed=False)[1][a], return_inverse=True)[1]


def ranking(
    predicted: np.ndarray,
    truth: np.ndarray,
    isomer: np.ndarray,
    size: int,
    own: np.ndarray | None = None,
    lowest: int = LOWEST,
) -> Ranking:
    """How well predictions rank frames.

    Args:
        predicted: Predicted energies ``[num_frames]`` in eV.
        truth: True energies ``[num_frames]`` in eV.
        isomer: Number of the isomer of each frame ``[num_frames]``.
        size: Number of atoms.
        own: Energies of the frames themselves ``[num_frames]`` in eV.
        lowest: Number of frames, the lowest by true energy, that are to be found.
    """
    order = np.argsort(predicted, kind="stable")
    best = isomer[np.argmin(truth)]
    found = recall_curve(predicted, truth, lowest)
    lowest = min(lowest, len(truth))
    varied = len(truth) > 1 and np.ptp(predicted) > 0 and np.ptp(truth) > 0
    return Ranking(
        size=int(size),
        frames=len(truth),
        spearman=float(spearmanr(predicted, truth).statistic) if varied else float("nan"),
        kendall=float(kendalltau(predicted, truth).statistic) if varied else float("nan"),
        mae_kcal_mol=float(np.abs(predicted - truth).mean() * KCAL_PER_MOL),
        mae_own_kcal_mol=float("nan") if own is None else float(np.abs(predicted - own).mean() * KCAL_PER_MOL),
        rank_of_lowest=int(np.flatnonzero(isomer[order] == best)[0]) + 1,
        recall=float(found[lowest - 1]),
        recall_of_four=float(found[min(4 * lowest, len(truth)) - 1]),
    )


def recall_curve(predicted: np.ndarray, truth: np.ndarray, lowest: int = LOWEST) -> np.ndarray:
    """Share of the lowest frames by true energy among the 1, 2, 3, ... lowest by prediction, ``[num_frames]``."""
    wanted = _lowest(truth, lowest)
    return np.cumsum(wanted[np.argsort(predicted, kind="stable")]) / wanted.sum()


def isomer_curve(predicted: np.ndarray, truth: np.ndarray, isomer: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """Share of all isomers within a window of the lowest that are among the 1, 2, 3, ... lowest by prediction.

    Returns:
        ``[num_frames]``
    """
    order = np.argsort(predicted, kind="stable")
    low = np.flatnonzero(truth[order] <= truth.min() + window)
    _, first = np.unique(isomer[order][low], return_index=True)
    new = np.zeros(len(order))
    new[low[first]] = 1
    return np.cumsum(new) / new.sum()


def worth(
    places: np.ndarray,
    truth: np.ndarray,
    isomer: np.ndarray,
    size: int,
    way: str,
    structure: np.ndarray | None = None,
    lowest: int = LOWEST,
    window: float = WINDOW,
) -> StrategyScore:
    """What a choice of frames is worth.

    Args:
        places: The chosen frames ``[num_chosen]``, at least one.
        truth: True energies ``[num_frames]`` in eV.
        isomer: Number of the isomer of each frame ``[num_frames]``.
        size: Number of atoms.
        way: Name of the way of choosing.
        structure: Number of the structure that each frame quenches to ``[num_frames]``.
        lowest: Number of frames, the lowest by true energy, that are to be found.
        window: Isomers this far above the lowest in eV are counted.
    """
    wanted = _lowest(truth, lowest)
    low = truth <= truth.min() + window
    low_isomers = len(np.unique(isomer[places][low[places]]))
    regret = float(truth[places].min() - truth.min())
    recall = float(wanted[places].sum() / wanted.sum())
    return StrategyScore(
        size=int(size),
        way=way,
        runs=len(places),
        regret_kcal_mol=regret * KCAL_PER_MOL,
        regret_mev_per_atom=regret / size * MEV,
        recall=recall,
        enrichment=recall * len(truth) / len(places),
        distinct=len(np.unique(isomer[places])) / len(places),
        distinct_structures=(float("nan") if structure is None else len(np.unique(structure[places])) / len(places)),
        low_isomers=low_isomers,
        low_isomers_share=low_isomers / len(np.unique(isomer[low])),
    )


def worth_at_random(
    number: int,
    truth: np.ndarray,
    isomer: np.ndarray,
    size: int,
    way: str = "random",
    draws: int = DRAWS,
    seed: int = 0,
    **options,
) -> StrategyScore:
    """Mean worth of random choices of a number of frames; the other arguments are those of :func:`worth`."""
    rng = np.random.default_rng(seed)
    number = min(number, len(truth))
    rows = [
        asdict(worth(rng.choice(len(truth), number, replace=False), truth, isomer, size, way, **options))
        for _ in range(draws)
    ]
    names = [name for name in rows[0] if name not in ("size", "way", "runs", "composition")]
    means: dict[str, Any] = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return StrategyScore(size=int(size), way=way, runs=number, **means)


def _lowest(truth: np.ndarray, lowest: int) -> np.ndarray:
    wanted = np.zeros(len(truth), dtype=bool)
    wanted[np.argsort(truth, kind="stable")[:lowest]] = True
    return wanted
