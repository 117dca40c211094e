"""``pyg-clusters calibrate``."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_clusters.conformal import highest_coverage
from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.shieldings import shieldings_of
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.inference import Calibration, OutOfRangeFlagger, Prediction, Predictor
from pyg_clusters.inference.calibration import CALIBRATION, SpreadKind, expected_error, noise_of
from pyg_clusters.inference.loading import load_predictor
from pyg_clusters.models import Ensemble, LastLayerPosterior
from pyg_clusters.models.checkpoint import is_ensemble, weights_hash
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.training import ClusterDataModule
from pyg_clusters.training.run import data_of_run, groups_of
from pyg_clusters.units import KCAL_PER_MOL


def run(argv: Sequence[str]):
    """Calibrates the intervals of a model."""
    parser = verb_parser(
        "calibrate",
        "Errors of a run, or of an ensemble, on the validation part of its split, from which predict and evaluate make "
        "intervals of a stated coverage (--coverage); and what the training set looked like, for flags. Writes "
        "calibration.json into the folder.",
        "pyg-clusters calibrate runs/dart",
    )
    parser.add_argument("run", type=Path, help="folder of a run, or of an ensemble of runs")
    parser.add_argument(
        "--spread",
        type=Literal["none", "last_layer"],
        default="none",
        help="of a single model: intervals that grow with the root of the number of atoms, or also with the spread of "
        "a Gaussian posterior of the last layer (an ensemble has its own spread)",
    )
    parser.add_argument("--device", type=str | None, help="cpu, cuda, ...; by default CUDA where there is one")
    options = parse(parser, argv)
    ensemble = is_ensemble(options.run)
    if ensemble and options.spread != "none":
        raise InputError(f"{options.run} is an ensemble, which has its own spread: leave out --spread")
    with open_output(options.run, ("calibrate", *argv), results=()):
        calibration = calibrate_run(options.run, "ensemble" if ensemble else options.spread, options.device)
        calibration.save(options.run / CALIBRATION)
    _print(calibration)
    print(f"written to {options.run / CALIBRATION}")


def calibrate_run(folder: Path, spread: SpreadKind, device: str | None = None) -> Calibration:
    """Calibration of a model of energies or shieldings on the validation part of its split.

    Args:
        folder: Folder of the run or the ensemble.
        spread: Where its spread comes from.
        device: Where to compute.

    Raises:
        InputError: If the folder is not that of a run on clusters with positions.
    """
    data = data_of_run(folder)
    train, held_out = (data.batches.blocks(part) for part in (data.split.train, data.split.val))
    if getattr(data.dataset, "per_atom", False):
        if spread == "last_layer":
            raise InputError(
                f"{folder} predicts values of atoms; a posterior of the last layer is for energies of DART"
            )
        return _of_shieldings(folder, data, train, held_out, spread, device)
    if "pos" not in next(iter(train)):
        raise InputError(f"{folder} was trained on descriptors without positions; calibrate needs positions")
    predictor = load_predictor(folder, device)
    error, sizes, _ = errors_of(predictor, train, data.labels)
    noise = noise_of(error, sizes)
    covariance = None
    if spread == "last_layer":
        posterior = LastLayerPosterior.fit_blocks(predictor.model.cpu(), map(_atoms, train), noise)
        covariance = posterior.covariance.tolist()
        predictor = Predictor(posterior, device=predictor.device)
    error, sizes, deviation = errors_of(predictor, held_out, data.labels)
    known = OutOfRangeFlagger.fit_blocks(map(_atoms, train), getattr(_one(predictor.model), "radii", ()))
    known.allow_blocks(map(_atoms, held_out))
    return Calibration(
        spread=spread,
        noise=noise,
        scores=(np.abs(error) / expected_error(noise, sizes, deviation)).tolist(),
        groups=groups_of(data, data.split.val).tolist(),
        weights=weights_hash(folder),
        covariance=covariance,
        range=known,
        notes={"unit": "eV", "size": int(np.median(sizes)), "train_clusters": len(data.split.train)},
    )


def _of_shieldings(
    folder: Path,
    data: ClusterDataModule,
    train: Iterable[Data],
    held_out: Iterable[Data],
    spread: SpreadKind,
    device: str | None,
) -> Calibration:
    """Calibration of values of atoms, of which those of a cluster are alike."""

    def predict(batch: Data) -> Prediction:
        return shieldings_of(folder, data, batch, device)

    error, _, _ = _errors(predict, train, data.labels)
    noise = noise_of(error, np.ones(len(error)))
    error, sizes, deviation = _errors(predict, held_out, data.labels)
    scores = np.abs(error) / expected_error(noise, np.ones(len(error)), deviation)
    return Calibration(
        spread=spread,
        noise=noise,
        scores=scores.tolist(),
        groups=np.repeat(groups_of(data, data.split.val), sizes).tolist(),
        weights=weights_hash(folder),
        notes={"unit": "ppm", "train_clusters": len(data.split.train)},
    )


def _print(calibration: Calibration):
    number, energies = len(set(calibration.groups)), calibration.notes["unit"] == "eV"
    what, unit, per_unit = ("clusters", "kcal/mol", KCAL_PER_MOL) if energies else ("atoms", "ppm", 1.0)
    highest = highest_coverage(number)
    print(f"{len(calibration.scores)} held-out {what} in {number} groups: coverage up to {highest:.3f}")
    size = calibration.notes.get("size", 1)
    where = f" for {size} atoms" if energies else ""
    more = ", and more with the spread" if calibration.spread != "none" else ""
    for coverage in (coverage for coverage in (0.5, 0.8, 0.9, 0.95) if coverage < highest):
        half = float(calibration.half_width(coverage, [size])[0]) * per_unit
        print(f"  {100 * coverage:.0f} %: ± {half:.2f} {unit}{where}{more}")


def errors_of(
    predictor: Predictor, blocks: Iterable[Data], labels: Callable[[Data], Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Errors in eV, sizes and spreads in eV of clusters that come in batches, ``[num_graphs]`` each.

    Args:
        predictor: Of the model.
        blocks: The clusters.
        labels: True energies ``[num_graphs]`` in eV of a batch (:meth:`ClusterDataModule.labels`).
    """
    return _errors(lambda batch: predictor(batch.z, batch.pos, batch.ptr), blocks, labels)


def _errors(
    predict: Callable[[Data], Prediction], blocks: Iterable[Data], labels: Callable[[Data], Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Errors and spreads per target, and sizes of the clusters."""
    errors, sizes, spreads = [], [], []
    for batch in blocks:
        found = predict(batch)
        values = found.shielding if found.per_atom else found.energy
        errors.append(values.double().numpy() - labels(batch).double().numpy())
        sizes.append(batch.ptr.diff().numpy())
        if found.spread is not None:
            spreads.append(found.spread.numpy())
    return np.concatenate(errors), np.concatenate(sizes), np.concatenate(spreads) if spreads else None


def _atoms(batch: Data) -> tuple[Tensor, Tensor, Tensor]:
    return batch.z, batch.pos, batch.ptr


def _one(model: nn.Module) -> nn.Module:
    """A member of an ensemble, or the model within a posterior."""
    if isinstance(model, Ensemble):
        return model.members[0]
    return model.model if isinstance(model, LastLayerPosterior) else model
