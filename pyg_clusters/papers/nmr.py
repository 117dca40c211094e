"""The models of Kaneko et al. 2023 (doi 10.20517/jmi.2022.39) on the shipped sodium clusters."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.files import read_json, write_json
from pyg_clusters.frames.writing import read_columns, write_table
from pyg_clusters.inference.run import FINISHED, HISTORY, PREDICTIONS, SPLITS
from pyg_clusters.metrics import shielding_metrics
from pyg_clusters.models import ShieldingLasso
from pyg_clusters.models.checkpoint import BEST, save_model
from pyg_clusters.models.shielding_lasso import Variables
from pyg_clusters.papers.tables import deviation, num_train_clusters, seconds_of_finished
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.training.launcher import Training

Metrics = Mapping[str, float | int]

FOLDS: int = 5

FOLDS_TABLE, SIZES_TABLE, TRADE_OFF, CURVE = "Five folds", "Split of the paper", "Trade-off", "Learning curve"

BEST_OF_SEEDS, MEAN_OF_SEEDS = "best seed by validation", "mean over seeds"
"""Combinations of the seeds: that of the paper, and a deep ensemble."""


@dataclass(frozen=True)
class Method:
    """A model with its loss."""

    name: str  #: Name in folders.
    label: str  #: Name in tables.
    variables: Variables | None = None  #: Variables of a Lasso; ``None`` for networks.
    a: float = 0.0  #: Weight of the sorted penalty; 0 is the mean squared error.
    transform: bool = False  #: Whether targets are transformed by a generalised logistic distribution.
    paper_rmse: float | None = None  #: RMSE of the paper on 200 clusters of 40 atoms, in ppm, if given.
    recipe: str | None = None  #: Shipped recipe of a network that is not in the paper.
    epochs: int | None = None  #: Maximum number of epochs of this recipe.


def lasso(variables: Variables, transform: bool = False) -> Method:
    """Lasso on coordination numbers, populations or both, or on the features of an extended Hückel calculation."""
    label, paper = {
        "coordination": ("coordination", 37.6),
        "populations": ("populations (by DFT)", 35.1),
        "both": ("both (by DFT)", 34.9),
        "huckel": ("extended Hückel", None),
    }[variables]
    name, label = f"lasso_{variables}", f"Lasso, {label}"
    if transform:
        return Method(f"{name}_transformed", f"{label}, transformed", variables, transform=True)
    return Method(name, label, variables, paper_rmse=paper)


def schnet(a: float = 0.0, transform: bool = False) -> Method:
    """NodeSchNet with the sorted penalty of weight a."""
    name, label = f"schnet_a{a:g}", "NodeSchNet, " + (f"penalty a = {a:g}" if a else "MSE")
    if transform:
        return Method(f"{name}_transformed", f"{label}, transformed", a=a, transform=True)
    return Method(name, label, a=a, paper_rmse=None if a else 35.2)


def huckel_schnet(a: float = 0.0) -> Method:
    """NodeSchNet with the features of an extended Hückel calculation and the sorted penalty of weight a."""
    label = "NodeSchNet, extended Hückel, " + (f"penalty a = {a:g}" if a else "MSE")
    return Method(f"schnet_huckel_a{a:g}", label, a=a, recipe="sodium_extended_huckel.yaml", epochs=60)


def shielding_dart(a: float = 0.0) -> Method:
    """ShieldingDART with the sorted penalty of weight a."""
    label = "ShieldingDART, " + (f"penalty a = {a:g}" if a else "MSE")
    return Method(f"shielding_dart_a{a:g}", label, a=a, recipe="sodium_shielding_dart.yaml", epochs=60)


VARIABLES: tuple[Variables, ...] = ("coordination", "populations", "both")

METHODS: tuple[Method, ...] = (
    *(lasso(variables, transform) for variables in VARIABLES for transform in (False, True)),
    *(schnet(a, transform) for a in (0.0, 3.0) for transform in (False, True)),
    *(shielding_dart(a) for a in (0.0, 3.0)),
    lasso("huckel"),
    *(huckel_schnet(a) for a in (0.0, 3.0)),
)
"""Methods compared in the paper, ShieldingDART, and models with the features of an extended Hückel calculation."""


@dataclass(frozen=True)
class Division:
    """Division of the clusters into training, validation and test set."""

    #: Index of the test fold of a cross-validation by cluster; ``None`` is the paper's split: trained on 14 to 26
    #: atoms, validated on 28 and 30, tested on 40.
    fold: int | None = None
    most: int | None = None  #: Maximum number of training clusters.

    @property
    def name(self) -> str:
        """Name in folders."""
        name = "sizes" if self.fold is None else f"fold{self.fold}"
        return name if self.most is None else f"{name}_of{self.most}"

    @property
    def subset(self) -> str:
        """Subset of :class:`~pyg_clusters.datasets.SodiumShielding` that is divided."""
        return "all_sizes" if self.fold is None else "stable"

    def arguments(self) -> dict[str, Any]:
        """Arguments of :class:`~pyg_clusters.training.ClusterDataModule`."""
        fold = {"split": "fold", "folds": FOLDS, "fold": self.fold}
        most = {} if self.most is None else {"max_train_clusters": self.most}
        return ({"split": "paper"} if self.fold is None else fold) | most


@dataclass(frozen=True)
class Extent:
    """Amount of computation."""

    epochs: int = 200  #: Maximum number of epochs of a training run.
    folds: tuple[int, ...] = tuple(range(FOLDS))  #: Test folds.
    weights: tuple[float, ...] = (0.0, 0.3, 1.0, 3.0, 10.0)  #: Weights of the penalty in the trade-off curve.
    #: Numbers of training clusters of the learning curve, besides all.
    fewer: tuple[int, ...] = (10, 20, 40, 80, 160, 320)


QUICK = Extent(epochs=20, folds=(0, 1), weights=(0.0, 3.0, 10.0), fewer=(20,))  # extent of a quick run


@dataclass(frozen=True)
class Row:
    """A row of a table: a method, tested on the test sets of all divisions together."""

    table: str
    method: Method
    divisions: tuple[Division, ...]

    @property
    def label(self) -> str:
        """Name in tables."""
        most = self.divisions[0].most
        return self.method.label if most is None else f"{self.method.label}, {most} clusters"


def rows(num_clusters: int, extent: Extent | None = None) -> list[Row]:
    """Rows of all tables for a data set of this size; the learning curve has only numbers well below a training set."""
    extent = extent or Extent()
    folds = tuple(Division(fold) for fold in extent.folds)
    planned = [Row(SIZES_TABLE, method, (Division(),)) for method in METHODS]
    planned += [Row(FOLDS_TABLE, method, folds) for method in METHODS]
    planned += [Row(TRADE_OFF, schnet(a), folds) for a in extent.weights]
    train_clusters = num_clusters * (FOLDS - 2) / FOLDS
    for method in (lasso("coordination"), schnet()):
        for most in (*(number for number in extent.fewer if number < 0.8 * train_clusters), None):
            planned.append(Row(CURVE, method, tuple(Division(fold, most) for fold in extent.folds)))
    return planned


def folder_name(method: Method, division: Division, seed: int) -> str:
    """Folder of a training run or fit; a Lasso has no seed."""
    name = f"{method.name}_{division.name}"
    return name if method.variables else f"{name}_seed{seed}"


def trainings(chosen: Sequence[Row], recipe: Path, seeds: int, epochs: int) -> list[Training]:
    """Training runs of networks for rows, without repetition, by the recipe of NodeSchNet.

    The seeds are those of initialisation and order; the divisions stay the same.
    """
    planned: dict[str, Training] = {}
    for seed in range(seeds):
        for row in chosen:
            for division in row.divisions:
                if row.method.variables is None:
                    name = folder_name(row.method, division, seed)
                    own = recipe if row.method.recipe is None else shipped_recipe(row.method.recipe)
                    planned[name] = Training(name, own, _options(row.method, division, seed, epochs))
    return list(planned.values())


def _options(method: Method, division: Division, seed: int, epochs: int) -> tuple[str, ...]:
    changes = {
        "seed_everything": seed,
        "data.dataset.init_args.subset": division.subset,
        "data.dataset.init_args.pre_filter": "pyg_clusters.datasets.UnrelaxedOnly",
        **{f"data.{key}": value for key, value in division.arguments().items()},
        "data.shuffle_seed": seed,
        "model.model.init_args.transform": str(method.transform).lower(),
        "model.loss.init_args.a": method.a,
        "trainer.max_epochs": min(epochs, method.epochs or epochs),
    }
    return tuple(word for key, value in changes.items() for word in (f"--{key}", str(value)))


def fit_lassos(chosen: Sequence[Row], datasets: Mapping[str, ClusterDataset], folder: Path):
    """Fit the missing Lassos of rows to the data set of their subset, each into its own folder below ``folder``."""
    for row in chosen:
        for division in row.divisions if row.method.variables else ():
            run, dataset = folder / folder_name(row.method, division, 0), datasets[division.subset]
            finished = read_json(run / FINISHED, "fit it again") if (run / FINISHED).is_file() else {}
            if finished.get("data") != dataset.fingerprint:
                _fit_lasso(row.method, TrainingData(dataset, **division.arguments()), run)


def _fit_lasso(method: Method, data: TrainingData, run: Path):
    begin = time.monotonic()
    parts = (data.split.train, data.split.val, data.split.test)
    train, val, test = (data.batches.stored(part.tolist()) for part in parts)
    model = ShieldingLasso(method.variables or "coordination", method.transform)
    errors = model.fit(train, val)
    with torch.no_grad():
        populations = test.populations if model.needs_dft else None
        predicted = model(test.z, test.pos, test.batch, populations=populations)
    sizes = test.ptr.diff()
    columns = {
        "idx": data.split.test.repeat_interleave(sizes).numpy(),
        "size": sizes.repeat_interleave(sizes).numpy(),
        "nmr_shielding": test.y.numpy(),
        "pred_nmr_shielding": predicted.numpy(),
    }
    alpha = min(errors, key=lambda weight: errors[weight])
    save_model(model, run / BEST, {"alpha": alpha, "val_rmse_ppm": errors[alpha]})
    data.split.save(run / SPLITS)
    write_table(run / PREDICTIONS, columns)
    summary = {
        "seconds": round(time.monotonic() - begin, 1),
        "alpha": alpha,
        "val_rmse_ppm": errors[alpha],
        "data": getattr(data.dataset, "fingerprint", None),
    }
    write_json(run / FINISHED, summary)


@dataclass(frozen=True)
class Result:
    """Errors of a row."""

    row: Row  #: The row.
    #: :func:`~pyg_clusters.metrics.shielding_metrics` over all test sets together, one per seed.
    overall: tuple[Metrics, ...]
    parts: Mapping[tuple[int, Division], Metrics]  #: The same of each test set, by seed and division.
    predicted: np.ndarray  #: Predicted shieldings of the first seed in ppm ``[num_atoms]``.
    target: np.ndarray  #: Shieldings by DFT in ppm ``[num_atoms]``.
    clusters: int  #: Number of clusters in the test sets.
    train_clusters: float  #: Mean number of clusters in a training set.
    minutes: float  #: Mean training time on one thread.
    #: Metrics of each test set for the combinations of the seeds (:data:`MEAN_OF_SEEDS`, :data:`BEST_OF_SEEDS`); empty
    #: for one seed.
    of_seeds: Mapping[str, Mapping[tuple[int, Division], Metrics]] = field(default_factory=dict)
    overall_of_seeds: Mapping[str, Metrics] = field(default_factory=dict)  #: The same over all test sets together.

    def mean(self, key: str) -> float:
        """Mean of a metric over the seeds."""
        return float(np.mean([metrics[key] for metrics in self.overall]))


def results(chosen: Sequence[Row], folder: Path, seeds: int) -> list[Result]:
    """Errors of rows whose training runs are finished.

    Raises:
        InputError: If a training run is not finished.
    """
    return [_result(row, folder, seeds if row.method.variables is None else 1) for row in chosen]


def _result(row: Row, folder: Path, seeds: int) -> Result:
    runs = {
        (seed, division): folder / folder_name(row.method, division, seed)
        for seed in range(seeds)
        for division in row.divisions
    }
    seconds = [seconds_of_finished(run) for run in runs.values()]
    tables = {part: read_columns(run / PREDICTIONS) for part, run in runs.items()}
    predicted = {part: table["pred_nmr_shielding"] for part, table in tables.items()}
    target = {division: tables[0, division]["nmr_shielding"] for division in row.divisions}

    def together(parts: Mapping[Division, np.ndarray]) -> Metrics:
        """Metrics over all test sets."""
        return shielding_metrics(*(np.concatenate([of[part] for part in row.divisions]) for of in (parts, target)))

    joined: dict[str, dict[Division, np.ndarray]] = {}
    if seeds > 1:
        losses = {part: np.nanmin(read_columns(run / HISTORY)["val_loss"]) for part, run in runs.items()}
        best = {part: min(range(seeds), key=lambda seed: losses[seed, part]) for part in row.divisions}
        joined[BEST_OF_SEEDS] = {part: predicted[best[part], part] for part in row.divisions}
        joined[MEAN_OF_SEEDS] = {
            part: np.mean([predicted[seed, part] for seed in range(seeds)], axis=0) for part in row.divisions
        }
    of_first = {
        name: np.concatenate([tables[0, part][name] for part in row.divisions])
        for name in ("pred_nmr_shielding", "nmr_shielding", "idx")
    }
    return Result(
        row,
        tuple(together({part: predicted[seed, part] for part in row.divisions}) for seed in range(seeds)),
        {part: shielding_metrics(predicted[part], target[part[1]]) for part in runs},
        of_first["pred_nmr_shielding"],
        of_first["nmr_shielding"],
        len(np.unique(of_first["idx"])),
        float(np.mean([num_train_clusters(run) for run in runs.values()])),
        float(np.mean(seconds) / 60),
        {
            name: {(0, part): shielding_metrics(values, target[part]) for part, values in parts.items()}
            for name, parts in joined.items()
        },
        {name: together(parts) for name, parts in joined.items()},
    )


@dataclass(frozen=True)
class Paired:
    """Differences of a metric between two methods on the same test sets, one per division and seed."""

    mean: float  #: Mean of first minus second.
    deviation: float  #: Standard deviation of the differences; NaN for one.
    lower: int  #: Number of test sets in which the first is lower.
    number: int  #: Number of differences.


def paired(first: Result, second: Result, key: str = "rmse_ppm") -> Paired:
    """Compare a metric (:func:`~pyg_clusters.metrics.shielding_metrics`) of two methods on each of their test sets.

    A Lasso, which has no seed, is compared with every seed of a network.
    """
    values = []
    for seed, division in sorted({*first.parts, *second.parts}, key=lambda part: (part[0], part[1].name)):
        a, b = (
            result.parts.get((seed, division), result.parts.get((0, division)))  # a Lasso has no seed
            for result in (first, second)
        )
        if a is not None and b is not None:
            values.append(a[key] - b[key])
    return Paired(float(np.mean(values)), deviation(values), int((np.array(values) < 0).sum()), len(values))
