"""The tables of Modee et al. 2021 on the gallium clusters that ship."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch

from pyg_clusters.datasets import GNC, ClusterDataset, GalliumClusters
from pyg_clusters.errors import InputError
from pyg_clusters.inference import Predictor
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.papers.findings import Finding
from pyg_clusters.training.data import ClusterBatches
from pyg_clusters.training.launcher import Training, seconds_of

RANDOM = ("--data.split", "random", "--data.left_out_sizes", "[70]")
"""The paper's split: at random over 31 to 69 atoms, Ga70 apart (section 2.1)."""

GROUP = ("--data.split", "group", "--data.left_out_sizes", "[]")
"""Related minima on one side."""

CASES: tuple[tuple[int, int, int], ...] = ((46, 57, 60), (46, 57, 66), (57, 60, 66))
"""Sizes that are held out in Table 3."""

FEWER: tuple[int, ...] = (600, 1200, 2400)
"""Numbers of training clusters of the learning curve, beside all."""

QUICK_EPOCHS: int = 8


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        table: Where the paper has it.
        label: The model, or what is tested.
        training: Name of the training.
        sizes: Cluster sizes of the test set that count; all, if none are named.
        apart: Whether these sizes are not in the test set of the training but apart.
        paper: MAE and RMSE of the paper in kcal/mol per cluster, where it has them.
        paper_clusters: On how many structures.
    """

    table: str
    label: str
    training: str
    sizes: tuple[int, ...] = ()
    apart: bool = False
    paper: tuple[float, float] | None = None
    paper_clusters: int | None = None


@dataclass(frozen=True)
class Result:
    """Errors of a row, over the seeds; in kcal/mol per cluster.

    Attributes:
        row: The row.
        mae: One per seed.
        rmse: One per seed.
        clusters: Structures of the test set.
        train_clusters: Structures of the training set.
        minutes: Time of a training on one thread, the mean over the seeds.
    """

    row: Row
    mae: tuple[float, ...]
    rmse: tuple[float, ...]
    clusters: int
    train_clusters: int
    minutes: float


def rows(hdnn: bool = True, gnc: bool = False) -> list[Row]:
    """The rows of all tables.

    Args:
        hdnn: Whether with those of the baseline.
        gnc: Whether for the paper's own data, which have no groups.
    """
    table_2 = [
        Row("Table 2", "BPSF-HDNN", "hdnn", paper=(2.4, 3.03), paper_clusters=656),
        Row("Table 2", "DART", "dart", paper=(3.59, 4.55), paper_clusters=656),
        Row("Table 2", "DART without K", "dart_without_k", paper=(4.06, 5.16), paper_clusters=656),
        Row("Table 2", "DART without L", "dart_without_l", paper=(3.93, 5.05), paper_clusters=656),
        Row("Table 2", "DART without K and L", "dart_without_k_l", paper=(4.29, 5.45), paper_clusters=656),
        Row(
            "Table 2", "DART without interaction", "dart_without_interaction", paper=(12.33, 16.40), paper_clusters=656
        ),
    ]
    transfer = [Row("Section 3.2", "DART, Ga70", "dart", (70,), True, (4.71, 5.96), 285)]
    by_group = [
        Row("By group", "BPSF-HDNN", "hdnn_by_group"),
        Row("By group", "DART", "dart_by_group"),
    ]
    papers = ((4.77, 6.16, 427), (4.76, 6.02, 436), (4.34, 5.58, 570))
    table_3 = []
    for case, (mae, rmse, clusters) in zip(CASES, papers, strict=True):
        name = "dart_without_" + "_".join(map(str, case))
        label = "DART, " + ", ".join(map(str, case))
        table_3.append(Row("Table 3", label, name, case, paper=(mae, rmse), paper_clusters=clusters))
        table_3 += [Row("Table 3", f"  Ga{size}", name, (size,)) for size in case]
    curve = [Row("Learning curve", f"DART, {number}", f"dart_{number}") for number in FEWER]
    everything = [*table_2, *transfer, *by_group, *table_3, *curve] if not gnc else [*table_2, *transfer, *table_3]
    return [row for row in everything if hdnn or not row.training.startswith("hdnn")]


def options_of(name: str) -> tuple[str, ...]:
    """What a training of :func:`rows` changes in its recipe."""
    shells = "--model.model.init_args.active_shells"
    special = {
        "hdnn": RANDOM,
        "hdnn_by_group": GROUP,
        "dart": RANDOM,
        "dart_by_group": GROUP,
        "dart_without_k": (*RANDOM, shells, "[0, 2]"),
        "dart_without_l": (*RANDOM, shells, "[0, 1]"),
        "dart_without_k_l": (*RANDOM, shells, "[0]"),
        # The focal features, summed over the cluster and read out linearly.
        "dart_without_interaction": (*RANDOM, "--model.model.init_args.interaction_channels", "[]"),
    }
    for case in CASES:
        held_out = ("--data.split", "size", "--data.held_out_sizes", str(list(case)))
        special["dart_without_" + "_".join(map(str, case))] = held_out
    for number in FEWER:
        special[f"dart_{number}"] = (*GROUP, "--data.max_train_clusters", str(number))
    return special[name]


def trainings(
    names: Sequence[str],
    recipe: Path,
    hdnn_recipe: Path,
    seeds: int = 1,
    options: Sequence[str] = (),
    gnc: Path | None = None,
) -> list[Training]:
    """The trainings behind rows, one per name and seed.

    Args:
        names: Names of the trainings; each once.
        recipe: That of DART.
        hdnn_recipe: That of the baseline.
        seeds: Number of seeds, of initialisation and order; the splits stay the same.
        options: Further options of all.
        gnc: Folder of the paper's own data, to train on them instead of on the shipped ones.
    """
    made = []
    for seed in range(seeds):
        for name in dict.fromkeys(names):
            chosen = hdnn_recipe if name.startswith("hdnn") else recipe
            seeded = ("--seed_everything", str(seed), "--data.shuffle_seed", str(seed))
            all_options = (
                *options_of(name),
                *_data_options(name, gnc),
                *seeded,
                "--trainer.max_time",
                "null",
                *options,
            )
            made.append(Training(folder_name(name, seed), chosen, all_options))
    return made


def _data_options(name: str, gnc: Path | None) -> tuple[str, ...]:
    if gnc is None:
        return ()
    data: tuple[str, ...] = (
        "--data.dataset",
        "pyg_clusters.datasets.GNC",
        "--data.dataset.init_args.root",
        str(gnc.absolute()),
    )
    if name.startswith("hdnn"):
        data += ("--data.dataset.init_args.pre_transform", "pyg_clusters.transforms.SymmetryFunctions")
    return data if options_of(name)[:2] == ("--data.split", "size") else (*data, "--data.split", "paper")


def folder_name(name: str, seed: int) -> str:
    """Folder of a training."""
    return f"{name}_seed{seed}"


def results(chosen: Sequence[Row], folder: Path, seeds: int, gnc: Path | None = None) -> list[Result]:
    """Errors of rows whose trainings are finished.

    Args:
        chosen: The rows.
        folder: Folder of the run folders.
        seeds: Number of seeds that each row needs; of more that are there all count.
        gnc: Folder of the paper's own data, if they were trained on.

    Raises:
        InputError: If a training is not finished.
    """
    apart: ClusterDataset | None = None
    found = []
    for row in chosen:
        errors, minutes, clusters, train_clusters = [], [], 0, 0
        for seed in count():
            run = folder / folder_name(row.training, seed)
            seconds = seconds_of(run)
            if seconds is None and seed < seeds:
                raise InputError(f"{run}: not trained to the end yet")
            if seconds is None:
                break
            if row.apart:
                if apart is None:
                    apart = GalliumClusters() if gnc is None else GNC(gnc)
                metrics = _errors_apart(run, apart, row.sizes)
            else:
                metrics = _errors(run, row.sizes)
            errors.append((metrics["mae_kcal_mol"], metrics["rmse_kcal_mol"]))
            clusters = int(metrics["num_clusters"])
            train_clusters = len((run / "splits" / "train.txt").read_text().split())
            minutes.append(seconds / 60)
        mae, rmse = zip(*errors, strict=True)
        found.append(Result(row, mae, rmse, clusters, train_clusters, float(np.mean(minutes))))
    return found


def _errors(run: Path, sizes: Sequence[int]) -> dict:
    metrics = json.loads((run / "test_metrics.json").read_text())
    if not sizes:
        return metrics["overall"]
    by_size = {row["size"]: row for row in metrics["by_size"] if row["size"] in sizes}
    numbers = np.array([by_size[size]["num_clusters"] for size in sizes])
    mae = np.array([by_size[size]["mae_kcal_mol"] for size in sizes])
    rmse = np.array([by_size[size]["rmse_kcal_mol"] for size in sizes])
    return {
        "mae_kcal_mol": float(np.average(mae, weights=numbers)),
        "rmse_kcal_mol": float(np.sqrt(np.average(rmse**2, weights=numbers))),
        "num_clusters": int(numbers.sum()),
    }


def _errors_apart(run: Path, dataset: ClusterDataset, sizes: Sequence[int]) -> dict:
    clusters = torch.isin(dataset.sizes, torch.tensor(sizes)).nonzero().flatten().tolist()
    batch = ClusterBatches(dataset).stored(clusters)
    predicted = Predictor(load_model(run))(batch.z, batch.pos, batch.ptr).energy
    return energy_metrics(predicted.numpy(), batch.y.numpy(), batch.ptr.diff().numpy())


def findings(found: Sequence[Result]) -> list[Finding]:
    """What the paper concludes, confirmed or denied; only what the rows at hand can decide."""
    mae = {(result.row.table, result.row.label): float(np.mean(result.mae)) for result in found}
    rmse = {(result.row.table, result.row.label): float(np.mean(result.rmse)) for result in found}
    table_2 = {label: value for (table, label), value in mae.items() if table == "Table 2"}
    said = []
    full, without = table_2.get("DART"), {key: table_2.get(f"DART without {key}") for key in ("K", "L", "interaction")}
    if full and without["K"] and without["L"]:
        figures = f"MAE {full:.2f} with all shells, {without['K']:.2f} without K, {without['L']:.2f} without L"
        said.append(Finding("The K shell matters more than the L shell.", without["K"] > without["L"], figures))
    if full and without["interaction"]:
        ratio = without["interaction"] / full
        text = "Without the interaction network the error triples."
        said.append(Finding(text, ratio > 2.5, f"{ratio:.1f} times (paper: {12.33 / 3.59:.1f})"))
    if full and "BPSF-HDNN" in table_2:
        text = "BPSF-HDNN is more accurate than DART."
        said.append(Finding(text, table_2["BPSF-HDNN"] < full, f"MAE {table_2['BPSF-HDNN']:.2f} against {full:.2f}"))
    labels = ["DART, " + ", ".join(map(str, case)) for case in CASES]
    if all(("Table 3", label) in mae for label in labels):
        by_size: dict[int, list[float]] = {}
        for result in found:
            if result.row.table == "Table 3" and len(result.row.sizes) == 1:
                by_size.setdefault(result.row.sizes[0], []).append(float(np.mean(result.rmse)))
        worst = max(by_size, key=lambda size: float(np.mean(by_size[size])))
        means = ", ".join(f"Ga{size} {np.mean(values):.2f}" for size, values in sorted(by_size.items()))
        said.append(
            Finding("Ga46, a magic cluster, is predicted worse than 57, 60 and 66.", worst == 46, f"RMSE {means}")
        )
        spread = max(max(values) - min(values) for size, values in by_size.items() if size != 46)
        text = "The RMSE of 57, 60 and 66 is the same whichever sizes are left out."
        said.append(Finding(text, spread < 0.5, f"largest difference {spread:.2f} kcal/mol"))
    grouped, leaky = mae.get(("By group", "DART")), full
    if grouped and leaky:
        text = "A random split flatters the model: related minima on both sides."
        both = rmse["Table 2", "DART"], rmse["By group", "DART"]
        figures = f"MAE {leaky:.2f} at random, {grouped:.2f} by group (RMSE {both[0]:.2f}, {both[1]:.2f})"
        said.append(Finding(text, grouped > leaky, figures))
    return said
