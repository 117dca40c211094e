"""Labels of the sodium clusters, and the findings of Kaneko et al. 2023, confirmed or rejected."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from pyg_clusters.datasets import POPULATIONS, ClusterDataset
from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.metrics import shielding_metrics
from pyg_clusters.papers.nmr import FOLDS_TABLE, SIZES_TABLE, Result, lasso, paired, schnet
from pyg_clusters.papers.tables import Finding
from pyg_clusters.transforms.neighbors import SODIUM_RADII, running_coordination

RADIUS: float = 4.0
"""Cutoff of the coordination numbers in Fig. 2 and 6 of the paper in Å."""

STEP: float = 0.01  # standard deviation of the smooth step of a coordination number in Å
CORRELATED: float = 0.3  # smallest magnitude of a correlation coefficient that counts
SAME: float = 0.05  # relative difference below which errors count as equal
NEAR: float = 10.0  # difference in ppm below which means and peaks count as equal
LOW: float = 500.0  # shieldings below this value in ppm are the outliers of the paper

Judge = Callable[..., tuple[bool, str]]


@dataclass(frozen=True)
class Labels:
    """Labels of all atoms of a set of clusters, ``[num_atoms]`` each."""

    shielding: np.ndarray  #: Shielding in ppm.
    sizes: np.ndarray  #: Size of the cluster of each atom.
    coordination: np.ndarray  #: Number of neighbours within 4.0 Å.
    populations: dict[str, np.ndarray]  #: Gross orbital population of each function, in electrons.
    clusters: int  #: Number of clusters.

    @classmethod
    def of(cls, dataset: ClusterDataset) -> "Labels":
        """Labels of a data set with shieldings and populations."""
        batch = ClusterBatches(dataset).stored(range(len(dataset)))
        sizes = batch.ptr.diff()
        return cls(
            batch.y.numpy(),
            sizes.repeat_interleave(sizes).numpy(),
            running_coordination(batch.pos, batch.ptr, [RADIUS], STEP).squeeze(-1).numpy(),
            dict(zip(POPULATIONS, batch.populations.numpy().T, strict=True)),
            len(dataset),
        )


@dataclass(frozen=True)
class LabelledCluster:
    """A cluster with its shieldings."""

    name: str  #: Size and origin.
    atoms: Atoms  #: The structure.
    shielding: np.ndarray  #: Shielding in ppm ``[num_atoms]``.
    #: Running coordination numbers at :data:`~pyg_clusters.transforms.neighbors.SODIUM_RADII` ``[num_atoms,
    #: num_radii]``.
    running: np.ndarray

    @property
    def coordination(self) -> np.ndarray:
        """Number of neighbours within 4.0 Å ``[num_atoms]``."""
        return self.running[:, SODIUM_RADII.index(RADIUS)]


def labelled_cluster(dataset: ClusterDataset, index: int, kind: str) -> LabelledCluster:
    """A cluster of a data set of shieldings, with its kind in the name."""
    batch = ClusterBatches(dataset).stored([index])
    running = running_coordination(batch.pos, batch.ptr, SODIUM_RADII, STEP).numpy()
    atoms = Atoms(batch.z.numpy(), batch.pos.numpy())
    return LabelledCluster(f"Na{len(atoms)}, {kind}", atoms, batch.y.numpy(), running)


def relaxed_pairs(dataset: ClusterDataset) -> list[tuple[LabelledCluster, LabelledCluster]]:
    """Random clusters with their relaxed structures, where both are labelled.

    Args:
        dataset: Clusters with ``relaxed``; structures of the same random cluster form a group.
    """
    relaxed, groups = ClusterBatches(dataset).stored(range(len(dataset))).relaxed.flatten() > 0, dataset.groups
    pairs = []
    for index in (~relaxed).nonzero().flatten().tolist():
        partners = (relaxed & (groups == groups[index])).nonzero().flatten().tolist()
        pairs += [
            (labelled_cluster(dataset, index, "unrelaxed"), labelled_cluster(dataset, partner, "relaxed"))
            for partner in partners
        ]
    return pairs


def clusters_of_figure_7(
    dataset: ClusterDataset, pairs: Sequence[tuple[LabelledCluster, LabelledCluster]], every: ClusterDataset
) -> list[LabelledCluster]:
    """Clusters of Fig. 7 of the paper.

    For the largest size with a random cluster and its relaxed structure, these are the cluster of lowest energy, the
    random cluster with the lowest shielding, and its relaxed structure. Without such pairs, they are two random
    clusters of one size: the one with the lowest shielding of all, and the one whose lowest shielding is highest.

    Args:
        dataset: Random clusters.
        pairs: Random clusters with their relaxed structures.
        every: Random and relaxed clusters, with their ``energy``.
    """
    if pairs:
        grown, relaxed = min(pairs, key=lambda pair: (-len(pair[0].atoms), float(pair[0].shielding.min())))
        energy = ClusterBatches(every).stored(range(len(every))).energy.flatten()
        index = int(energy.where(every.sizes == len(grown.atoms), torch.inf).argmin())
        return [labelled_cluster(every, index, "the lowest energy"), grown, relaxed]
    batch = ClusterBatches(dataset).stored(range(len(dataset)))
    lowest = np.array([values.min() for values in batch.y.split(batch.ptr.diff().tolist())])
    worst = int(lowest.argmin())
    same_size = (dataset.sizes == dataset.sizes[worst]).numpy()
    best = int(np.where(same_size, lowest, -np.inf).argmax())
    kinds = {worst: "unrelaxed, with the lowest shielding", best: "unrelaxed, without low shieldings"}
    return [labelled_cluster(dataset, index, kind) for index, kind in kinds.items()]


def findings(
    reached: Sequence[Result],
    labels: Labels | None = None,
    pairs: Sequence[tuple[LabelledCluster, LabelledCluster]] = (),
) -> list[Finding]:
    """Findings of the paper that the given results can decide.

    Findings on models are decided by the five folds where available, otherwise by the paper's split.

    Args:
        reached: Results of rows.
        labels: Labels of random clusters.
        pairs: Random clusters with their relaxed structures.
    """
    about_labels = [] if labels is None else [*_about_labels(labels), _about_relaxing(pairs)]
    return [*about_labels, *_about_models(reached)]


def _about_labels(labels: Labels) -> list[Finding]:
    y = labels.shielding
    metrics = shielding_metrics(y, y)
    peak, skewness = metrics["peak_ppm"], metrics["skewness"]
    r = {name: _correlation(values, y) for name, values in labels.populations.items()}
    p3, p4 = ([r[f"{shell}P{axis}"] for axis in "XYZ"] for shell in "34")
    low = y < LOW
    inside = (labels.coordination > 3.5) & (labels.coordination < 9.5)
    shares = (
        f"{int((low & inside).sum())} of {int(low.sum())} such atoms; of all atoms {inside.mean():.0%} have as many"
    )
    return [
        Finding(
            "Shieldings peak near 600 ppm and have a tail to the left (Fig. 1).",
            abs(peak - 600) < 2 * NEAR and skewness < -0.2,
            f"peak {peak:.0f} ppm, skewness {skewness:.2f}",
        ),
        Finding(
            "The 3S population increases with the shielding (Fig. 2).",
            r["3S"] > CORRELATED,
            f"correlation {r['3S']:.2f}",
        ),
        Finding(
            "The 3P populations decrease with the shielding (Fig. 2).",
            max(p3) < -CORRELATED,
            f"correlation {_list(p3)}",
        ),
        Finding(
            "4S and 4P are not correlated with the shielding (Fig. 2).",
            max(map(abs, [r["4S"], *p4])) < CORRELATED,
            f"correlation {r['4S']:.2f} for 4S, {_list(p4)} for 4P",
        ),
        Finding(
            "Shieldings below 500 ppm belong to atoms of 4 to 9 neighbours within 4.0 Å (Fig. 6).",
            bool((low & inside).sum() >= 0.95 * low.sum()) if low.any() else None,
            shares,
        ),
    ]


def _about_relaxing(pairs: Sequence[tuple[LabelledCluster, LabelledCluster]]) -> Finding:
    statement = "Low shieldings come from unrelaxed structures: relaxation raises the lowest (Fig. 7)."
    if not pairs:
        paper = "paper: from 368 to 582 ppm, and one atom of coordination 12"
        return Finding(statement, None, f"no random cluster is also labelled relaxed ({paper})")
    lowest = np.array([[grown.shielding.min(), relaxed.shielding.min()] for grown, relaxed in pairs])  # [num_pairs, 2]
    rises = lowest[:, 1] - lowest[:, 0]
    crowded = sum(bool((relaxed.coordination > 11.5).any()) for _, relaxed in pairs)
    changes = ", ".join(f"{before:.0f} to {after:.0f}" for before, after in lowest[lowest[:, 0].argsort()])
    figures = (
        f"{len(pairs)} clusters are labelled before and after relaxation: the lowest changes from {changes} ppm, up in "
        f"{int((rises > 0).sum())} of them, by {rises.mean():.0f} ppm on average; {crowded} then have an atom of "
        "coordination 12"
    )
    return Finding(statement, bool(rises.mean() > 0 and (rises > 0).mean() > 0.5), figures)


def _about_models(reached: Sequence[Result]) -> list[Finding]:
    by_table: dict[str, dict[str, Result]] = {FOLDS_TABLE: {}, SIZES_TABLE: {}}
    for result in reached:
        by_table.get(result.row.table, {})[result.row.method.name] = result
    counts, populations, both = (lasso(kind).name for kind in ("coordination", "populations", "both"))
    mse, penalty = schnet().name, schnet(3.0).name
    wanted: list[tuple[str, tuple[str, ...], Judge]] = [
        ("Lasso is better on populations than on coordination numbers (35.1, 37.6).", (populations, counts), _better),
        ("Both together are best for Lasso (34.9).", (both, populations, counts), _best),
    ]
    for name, of in ((counts, "coordination numbers"), (populations, "populations")):
        names = (name, f"{name}_transformed")
        wanted += [
            (f"The transform moves the peak of Lasso on {of} to the right, towards DFT's (Fig. 3).", names, _moves),
            (f"It worsens the RMSE of Lasso on {of} considerably.", names, _worsens),
        ]
    wanted += [
        (
            "NodeSchNet with MSE is better than Lasso on coordination numbers (35.2: 6.4 % lower).",
            (mse, counts),
            _better,
        ),
        ("With MSE it gives the mean but misses the most frequent value (Fig. 5).", (mse,), _misses_peak),
        ("With MSE it misses everything below 500 ppm (Fig. 5).", (mse,), _misses_low),
        (
            "The sorted penalty restores the shape (half of MSE's Wasserstein distance or less).",
            (penalty, mse),
            _restores,
        ),
        ("The sorted penalty has a worse RMSE.", (penalty, mse), _worse),
        ("The transform changes nothing for NodeSchNet with MSE.", (mse, f"{mse}_transformed"), _same),
        ("Nor with the sorted penalty.", (penalty, f"{penalty}_transformed"), _same),
    ]
    return [finding for entry in wanted for finding in _judged(by_table, *entry)]


def _judged(
    by_table: Mapping[str, Mapping[str, Result]], statement: str, names: Sequence[str], judge: Judge
) -> list[Finding]:
    """Decide by the first table that has the methods, and add the results of the others."""
    verdict: bool | None = None
    texts = []
    for table, methods in by_table.items():
        if not all(name in methods for name in names):
            continue
        holds, figures = judge(*(methods[name] for name in names))
        verdict = bool(holds) if verdict is None else verdict
        there = "" if holds == verdict else " (there it holds)" if holds else " (there it does not hold)"
        texts.append(f"{table}: {figures}{there}")
    return [Finding(statement, verdict, "; ".join(texts))] if texts else []


def _better(first: Result, second: Result, sign: int = 1) -> tuple[bool, str]:
    a, b = first.mean("rmse_ppm"), second.mean("rmse_ppm")
    return sign * a < sign * b, f"RMSE {a:.1f} against {b:.1f} ppm, {_percent(a, b)}{_lower_in(first, second)}"


def _worse(first: Result, second: Result) -> tuple[bool, str]:
    return _better(first, second, sign=-1)


def _best(first: Result, *others: Result) -> tuple[bool, str]:
    value, rest = first.mean("rmse_ppm"), [other.mean("rmse_ppm") for other in others]
    return value < min(rest), f"RMSE {value:.1f} against {', '.join(f'{other:.1f}' for other in rest)} ppm"


def _moves(direct: Result, transformed: Result) -> tuple[bool, str]:
    target, a, b = direct.mean("target_peak_ppm"), direct.mean("peak_ppm"), transformed.mean("peak_ppm")
    return b > a and abs(b - target) < abs(a - target), f"peak from {a:.0f} to {b:.0f} ppm (DFT: {target:.0f})"


def _worsens(direct: Result, transformed: Result) -> tuple[bool, str]:
    a, b = direct.mean("rmse_ppm"), transformed.mean("rmse_ppm")
    return b > (1 + SAME) * a, f"RMSE {a:.1f} direct, {b:.1f} ppm transformed, {_percent(b, a)}"


def _misses_peak(result: Result) -> tuple[bool, str]:
    means = float(result.predicted.mean()), float(result.target.mean())
    peaks = result.mean("peak_ppm"), result.mean("target_peak_ppm")
    holds = abs(means[0] - means[1]) < NEAR <= abs(peaks[0] - peaks[1])
    return holds, "mean {:.0f} (DFT {:.0f}), peak {:.0f} (DFT {:.0f}) ppm".format(*means, *peaks)


def _misses_low(result: Result) -> tuple[bool, str]:
    predicted, target = int((result.predicted < LOW).sum()), int((result.target < LOW).sum())
    figures = f"{predicted} atoms below 500 ppm predicted, {target} by DFT; lowest {result.predicted.min():.0f} ppm"
    return predicted <= 0.1 * target, figures


def _restores(penalty: Result, mse: Result) -> tuple[bool, str]:
    a, b = penalty.mean("wasserstein_ppm"), mse.mean("wasserstein_ppm")
    peaks = [result.mean("peak_ppm") for result in (penalty, mse)]
    figures = (
        f"Wasserstein distance {a:.1f} against {b:.1f} ppm, peak {peaks[0]:.0f} against {peaks[1]:.0f} (DFT: "
        f"{mse.mean('target_peak_ppm'):.0f})"
    )
    return a <= 0.5 * b, figures


def _same(direct: Result, transformed: Result) -> tuple[bool, str]:
    a, b = direct.mean("rmse_ppm"), transformed.mean("rmse_ppm")
    peaks = direct.mean("peak_ppm"), transformed.mean("peak_ppm")
    figures = (
        f"RMSE {a:.1f} direct, {b:.1f} ppm transformed{_lower_in(direct, transformed)}, peak {peaks[0]:.0f} and "
        f"{peaks[1]:.0f} ppm"
    )
    return abs(b - a) < SAME * a and abs(peaks[1] - peaks[0]) < NEAR, figures


def _lower_in(first: Result, second: Result) -> str:
    """Number of test sets in which the first has the lower RMSE, if there are several."""
    pair = paired(first, second)
    return f" (lower in {pair.lower} of {pair.number} parts)" if pair.number > 1 else ""


def _percent(value: float, other: float) -> str:
    return f"{abs(value / other - 1):.1%} {'lower' if value < other else 'higher'}"


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
