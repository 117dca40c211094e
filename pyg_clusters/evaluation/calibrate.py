"""Calibration of prediction intervals on held-out clusters."""

from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from pyg_clusters.errors import InputError
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference.calibration import CALIBRATION, Calibration, SpreadKind, expected_error, noise_of
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.predictor import Prediction, Predictor
from pyg_clusters.inference.run import Run
from pyg_clusters.models import Ensemble, LastLayerPosterior
from pyg_clusters.models.checkpoint import usable_device, weights_hash
from pyg_clusters.options.training import CalibrateOptions


def calibrate(options: CalibrateOptions) -> Calibration:
    """Calibrate the intervals of a run or an ensemble, and write ``calibration.json`` into its folder.

    Raises:
        InputError: If the folder is not that of a run on clusters with positions, or its model lacks such a spread.

    Example:
        >>> from pyg_clusters.options.training import CalibrateOptions
        >>> calibrate(CalibrateOptions(run="runs/dart")).quantile(0.9)  # doctest: +SKIP
        1.7
    """
    run = Run(options.run)
    if run.is_ensemble and options.spread != "none":
        raise InputError(f"{run.path} is an ensemble, which has its own spread: omit --spread")
    with open_output(options, run.path, results=()):
        calibration = _calibration(run, "ensemble" if run.is_ensemble else options.spread, options.device)
        calibration.save(run.path / CALIBRATION)
    return calibration


def _calibration(run: Run, spread: SpreadKind, device: str | None) -> Calibration:
    data = run.data
    train, held_out = (data.batches.blocks(part) for part in (data.split.train, data.split.val))
    if data.per_atom and spread == "last_layer":
        raise InputError(f"{run.path} predicts shieldings; a last-layer posterior exists only for energies of DART")
    if "pos" not in next(iter(train)):
        raise InputError(f"{run.path} was trained on descriptors without positions; calibrate needs positions")
    predict, per_atom = run.data_predictor(device), data.per_atom
    noise = noise_of(*_errors(predict, train, data.labels, per_atom)[:2])
    covariance = None
    if spread == "last_layer":
        posterior = LastLayerPosterior.fit_blocks(run.model.cpu(), map(_structure, train), noise)
        covariance = posterior.covariance.tolist()
        predictor = Predictor(posterior, device=usable_device(device))
        predict = lambda batch: predictor(batch.z, batch.pos, batch.ptr)  # noqa: E731
    error, atoms, deviation = _errors(predict, held_out, data.labels, per_atom)
    groups = data.groups(data.split.val)
    notes = {"unit": "ppm" if per_atom else "eV", "train_clusters": len(data.split.train)}
    if per_atom:
        groups = groups.repeat(np.concatenate([block.ptr.diff().numpy() for block in held_out]))
    else:
        notes["size"] = int(np.median(atoms))
    model = run.model.members[0] if isinstance(run.model, Ensemble) else run.model
    radii = getattr(model, "radii", ())
    if per_atom and not radii and hasattr(model, "cutoff"):
        radii = (model.cutoff,)
    trained = OutOfRangeFlagger.fit_blocks(map(_structure, train), radii, density=per_atom)
    trained.allow_blocks(map(_structure, held_out))
    return Calibration(
        spread=spread,
        noise=noise,
        scores=(np.abs(error) / expected_error(noise, atoms, deviation)).tolist(),
        groups=groups.tolist(),
        weights=weights_hash(run.path),
        covariance=covariance,
        range=trained,
        notes=notes,
    )


def _errors(
    predict: Callable[[Data], Prediction], blocks: Iterable[Data], labels: Callable[[Data], Tensor], per_atom: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Errors, numbers of atoms and spreads of predictions, ``[num]`` each."""
    errors, atoms, spreads = [], [], []
    for batch in blocks:
        prediction = predict(batch)
        errors.append(prediction.values.double().numpy() - labels(batch).double().numpy())
        atoms.append(np.ones(len(batch.z)) if per_atom else batch.ptr.diff().numpy())
        if prediction.spread is not None:
            spreads.append(prediction.spread.numpy())
    return np.concatenate(errors), np.concatenate(atoms), np.concatenate(spreads) if spreads else None


def _structure(batch: Data) -> tuple[Tensor, Tensor, Tensor]:
    return batch.z, batch.pos, batch.ptr
