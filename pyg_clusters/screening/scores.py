"""Scores of predictions and strategies on frames whose true energies are known (section 3.5 of Modee et al. 2021).

The true energy of a frame is that of the isomer to which a DFT optimisation would lead: for the shipped frames the
energy of the minimum that each quenches to. Two frames are distinct isomers if their true energies differ by more than
:data:`SAME_ENERGY` and, where the minima are known, their structures differ too. Arrays hold the frames of one
composition; energies are in eV per cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy.stats import kendalltau

from pyg_clusters.analysis.plots import MAX_PANELS, SHELL_COLORS, SMALL, legend, tidy
from pyg_clusters.composition import comparable, composition_names, kind_label
from pyg_clusters.evaluation.comparison import other_zero, zero_remarks
from pyg_clusters.metrics import mixed_zeros, spearman
from pyg_clusters.units import KCAL_PER_MOL, MEV

SAME_ENERGY: float = 1e-3
"""Largest difference in eV between the true energies of frames of one isomer."""

LOWEST: int = 50
"""Number of frames, the lowest by true energy, whose recall is measured."""

WINDOW: float = 0.5
"""Isomers up to this energy in eV above the lowest are counted as low."""

DRAWS: int = 200  # number of random selections that are averaged


@dataclass
class SizeFrames:
    """Frames of one size, or of one composition if there are alloys."""

    size: int  #: Number of atoms.
    z: np.ndarray  #: Atomic numbers ``[num_frames, num_atoms]``.
    pos: np.ndarray  #: Positions ``[num_frames, num_atoms, 3]`` in Å.
    predicted: np.ndarray  #: Predicted energies ``[num_frames]`` in eV.
    truth: np.ndarray  #: True energies ``[num_frames]`` in eV.
    isomer: np.ndarray  #: Isomer of each frame, as an integer ``[num_frames]``.
    #: Minimum that each frame quenches to, as an integer ``[num_frames]``, if known.
    structure: np.ndarray | None = None
    own: np.ndarray | None = None  #: Energies of the frames themselves ``[num_frames]`` in eV, if known.
    #: Standard deviations of the predictions ``[num_frames]`` in eV, if the model provides them.
    spread: np.ndarray | None = None
    composition: str = ""  #: Formula, if there are alloys.
    initial: np.ndarray | None = None  #: Predicted energies before a relaxation ``[num_frames]`` in eV.
    inside: np.ndarray | None = None  #: Whether a relaxation ended in a valid geometry ``[num_frames]``.

    @property
    def kind(self) -> int | str:
        """Composition, or size if there are no alloys."""
        return self.composition or self.size


@dataclass
class Ranking:
    """Quality of the ranking of the frames of a composition by predicted energies."""

    size: int  #: Number of atoms.
    num_frames: int  #: Number of frames.
    spearman: float  #: Rank correlation with the true energies.
    kendall: float  #: Kendall's tau-b with them.
    mae_kcal_mol: float  #: Mean absolute difference from them, per cluster.
    mae_own_kcal_mol: float  #: The same from the energies of the frames themselves; NaN if unknown.
    rank_of_lowest: int  #: Rank by prediction, from 1, of the first frame of the lowest isomer.
    #: Share of the :data:`LOWEST` frames by true energy (of all frames, if there are fewer) that are among the same
    #: number of lowest predictions.
    recall: float
    recall_of_four: float  #: The same among four times as many predictions (0.2 for a random ranking of 1,000 frames).
    composition: str = ""  #: Formula, if there are alloys.


@dataclass
class StrategyScore:
    """Scores of a strategy."""

    size: int  #: Number of atoms.
    strategy: str  #: Name of the strategy.
    runs: int  #: Number of selected frames, each a DFT calculation.
    regret_kcal_mol: float  #: Lowest true energy among the selected minus that of all frames, per cluster.
    regret_mev_per_atom: float  #: The same per atom.
    recall: float  #: Share of the :data:`LOWEST` frames by true energy that are selected.
    enrichment: float  #: ``recall`` divided by its mean over random selections of the same number of frames.
    distinct: float  #: Number of isomers among the selected frames, divided by the number of these frames.
    #: The same with isomers distinguished only by the structures of their minima; NaN if these are unknown.
    distinct_structures: float
    #: Number of isomers among the selected frames within :data:`WINDOW` of the lowest of all frames.
    low_isomers: float
    low_isomers_share: float  #: The same, divided by the number of such isomers among all frames.
    composition: str = ""  #: Formula, if there are alloys.

    @property
    def kind(self) -> int | str:
        """Composition, or size if there are no alloys."""
        return self.composition or self.size


def isomers_by_energy(energy: np.ndarray) -> np.ndarray:
    """Isomer of each frame, as an integer ``[num_frames]``: within :data:`SAME_ENERGY` of the lowest of an isomer.

    Distinct isomers may have equal energies by chance, so the number of isomers is a lower bound.

    Example:
        >>> isomers_by_energy(np.array([-9.0, -8.0, -9.0004, -8.9985]))
        array([0, 2, 0, 1])
    """
    energy = np.asarray(energy, dtype=float)
    isomer = np.zeros(len(energy), dtype=int)
    current, low = -1, -np.inf
    for index in np.argsort(energy, kind="stable"):
        if energy[index] - low > SAME_ENERGY:
            current, low = current + 1, energy[index]
        isomer[index] = current
    return isomer


def ranking(frames: SizeFrames, lowest: int = LOWEST) -> Ranking:
    """Quality of the ranking of frames by their predicted energies.

    Args:
        frames: The frames.
        lowest: Number of frames, the lowest by true energy, whose recall is measured.
    """
    predicted, truth = frames.predicted, frames.truth
    error = np.abs(predicted - truth)
    if frames.inside is not None:
        error = error[frames.inside]
    mae_own = float("nan")
    if frames.own is not None:
        initial = predicted if frames.initial is None else frames.initial
        mae_own = float(np.abs(initial - frames.own).mean() * KCAL_PER_MOL)
    order = np.argsort(predicted, kind="stable")
    best = frames.isomer[np.argmin(truth)]
    recall = recall_curve(predicted, truth, lowest)
    lowest = min(lowest, len(truth))
    correlation = spearman(predicted, truth)
    return Ranking(
        size=frames.size,
        num_frames=len(truth),
        spearman=correlation,
        kendall=float(kendalltau(predicted, truth).statistic) if np.isfinite(correlation) else float("nan"),
        mae_kcal_mol=float(error.mean() * KCAL_PER_MOL) if error.size else float("nan"),
        mae_own_kcal_mol=mae_own,
        rank_of_lowest=int(np.flatnonzero(frames.isomer[order] == best)[0]) + 1,
        recall=float(recall[lowest - 1]),
        recall_of_four=float(recall[min(4 * lowest, len(truth)) - 1]),
        composition=frames.composition,
    )


def recall_curve(predicted: np.ndarray, truth: np.ndarray, lowest: int = LOWEST) -> np.ndarray:
    """Share of the lowest frames by true energy among the 1, 2, 3, ... lowest by prediction, ``[num_frames]``."""
    is_lowest = _lowest(truth, lowest)
    return np.cumsum(is_lowest[np.argsort(predicted, kind="stable")]) / is_lowest.sum()


def isomer_curve(predicted: np.ndarray, truth: np.ndarray, isomer: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """Share of the low isomers among the 1, 2, 3, ... lowest frames by prediction, ``[num_frames]``."""
    order = np.argsort(predicted, kind="stable")
    low = np.flatnonzero(truth[order] <= truth.min() + window)
    _, first = np.unique(isomer[order][low], return_index=True)
    new = np.zeros(len(order))
    new[low[first]] = 1
    return np.cumsum(new) / new.sum()


def score_selection(index: np.ndarray, frames: SizeFrames, strategy: str, lowest: int = LOWEST) -> StrategyScore:
    """Score selected frames.

    Args:
        index: Indices of the selected frames ``[num_selected]``, at least one.
        frames: All frames.
        strategy: Name of the strategy.
        lowest: Number of frames, the lowest by true energy, whose recall is measured.
    """
    truth, isomer, structure = frames.truth, frames.isomer, frames.structure
    is_lowest = _lowest(truth, lowest)
    low = truth <= truth.min() + WINDOW
    low_isomers = len(np.unique(isomer[index][low[index]]))
    regret = float(truth[index].min() - truth.min())
    recall = float(is_lowest[index].sum() / is_lowest.sum())
    return StrategyScore(
        size=frames.size,
        strategy=strategy,
        runs=len(index),
        regret_kcal_mol=regret * KCAL_PER_MOL,
        regret_mev_per_atom=regret / frames.size * MEV,
        recall=recall,
        enrichment=recall * len(truth) / len(index),
        distinct=len(np.unique(isomer[index])) / len(index),
        distinct_structures=float("nan") if structure is None else len(np.unique(structure[index])) / len(index),
        low_isomers=low_isomers,
        low_isomers_share=low_isomers / len(np.unique(isomer[low])),
        composition=frames.composition,
    )


def score_random(count: int, frames: SizeFrames, strategy: str, draws: int = DRAWS) -> StrategyScore:
    """Mean score of random selections of ``count`` frames."""
    rng = np.random.default_rng(0)
    count = min(count, len(frames.truth))
    draw = [rng.choice(len(frames.truth), count, replace=False) for _ in range(draws)]
    scores = [score_selection(index, frames, strategy) for index in draw]
    names = [field.name for field in fields(StrategyScore)]
    names = [name for name in names if name not in ("size", "strategy", "runs", "composition")]
    means: dict[str, Any] = {name: float(np.mean([getattr(score, name) for score in scores])) for name in names}
    return replace(scores[0], **means)


def _lowest(truth: np.ndarray, lowest: int) -> np.ndarray:
    is_lowest = np.zeros(len(truth), dtype=bool)
    is_lowest[np.argsort(truth, kind="stable")[:lowest]] = True
    return is_lowest


def recall_curves(curves: Mapping[int | str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Recall among the lowest predictions, against the number of DFT runs.

    Args:
        curves: By cluster size or composition, share of the lowest frames and share of the low isomers among the 1, 2,
            3, ... lowest predictions, ``[num_frames]`` each.
    """
    figure = Figure(figsize=(8.4, 3.8), layout=ConstrainedLayoutEngine(wspace=0.06))
    titles = f"share of the lowest {LOWEST} frames", f"share of the isomers within {WINDOW:g} eV"
    shown = list(curves.items())[:MAX_PANELS]
    for panel, (axes, title) in enumerate(zip(figure.subplots(1, 2), titles, strict=True)):
        tidy(axes, "DFT runs, lowest prediction first", title)
        for (kind, pair), color in zip(shown, SHELL_COLORS, strict=False):
            runs = np.arange(1, len(pair[panel]) + 1)
            axes.plot(runs, pair[panel], color=color, linewidth=1.5, label=kind_label(kind))
        longest = max(len(pair[panel]) for _, pair in shown)
        label = "_" if panel else "random"
        axes.plot([0, longest], [0, 1], color="black", linestyle=":", linewidth=1, label=label)
        axes.set_ylim(0, 1.02)
        legend(axes, loc="lower right")
    return figure


def scores_by_strategy(scores: Sequence[StrategyScore]) -> Figure:
    """Low isomers selected by each strategy, and the regret of its best frame."""
    kinds = list(dict.fromkeys(score.kind for score in scores))[:MAX_PANELS]
    strategies = list(dict.fromkeys(score.strategy for score in scores))
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    tidy(left, f"distinct isomers within {WINDOW:g} eV (DFT runs)", "")
    tidy(right, "regret / kcal mol⁻¹", "")
    height = 0.8 / len(kinds)
    for number, (kind, color) in enumerate(zip(kinds, SHELL_COLORS, strict=False)):
        y = np.arange(len(strategies))[::-1] + 0.4 - height * (number + 0.5)
        of_kind = {score.strategy: score for score in scores if score.kind == kind}
        shown = [of_kind[strategy] for strategy in strategies]
        for axes, name, text in (
            (left, "low_isomers", "{0.low_isomers:.0f} ({0.runs})"),
            (right, "regret_kcal_mol", "{0.regret_kcal_mol:.1f}"),
        ):
            widths = [getattr(score, name) for score in shown]
            bars = axes.barh(y, widths, 0.9 * height, color=color, label=kind_label(kind))
            axes.bar_label(bars, [text.format(score) for score in shown], padding=3, fontsize=SMALL - 1)
    left.set_yticks(np.arange(len(strategies))[::-1], strategies)
    for axes in (left, right):
        axes.set_xlim(right=1.2 * axes.get_xlim()[1])
        axes.grid(visible=False, axis="y")
    legend(right, loc="best")
    return figure


def check_truth(z: np.ndarray, ptr: np.ndarray, predicted: np.ndarray, truth: np.ndarray, name: str) -> list[str]:
    """Warning if the zeros of true and predicted energies ``[num_graphs]`` in eV seem to differ.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        predicted: Predicted energies.
        truth: True energies.
        name: Name of the true energy in the frames.

    Raises:
        InputError: If they differ by more than the error of any model.
    """
    sizes = np.diff(ptr)
    mixed = mixed_zeros(truth, sizes, comparable(composition_names(z, ptr), sizes))
    if mixed is not None:
        return [f"warning: --truth {name}: {mixed}"]
    advice = (
        "Use the label that the model was trained on, give its unit with --energy-unit, or subtract the energies of "
        "the isolated atoms; compare-dft does not depend on the zero"
    )
    return zero_remarks(other_zero(z, ptr, predicted, truth), f"--truth {name}", advice)
