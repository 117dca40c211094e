"""Errors of trained models."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_clusters.analysis.plots import reliability, save_figure
from pyg_clusters.errors import InputError, MissingProperty
from pyg_clusters.evaluation.comparison import (
    Compared,
    TrainingSet,
    evaluation_of,
    force_errors,
    force_labels,
    force_remarks,
    forces_of,
)
from pyg_clusters.evaluation.result import Evaluation, run_figures
from pyg_clusters.frames import read_blocks
from pyg_clusters.frames.block import FrameBlock, UnlabelledFrame, flat_arrays
from pyg_clusters.frames.checks import atom_numbers, group_label, list_bad, no_usable_frame, numbers
from pyg_clusters.frames.energy_units import check_stated_force_unit, units_of_labels
from pyg_clusters.frames.paths import check_named_once, short_names
from pyg_clusters.frames.writing import open_output, write_table
from pyg_clusters.inference.predictor import Prediction, Predictor, check_forces
from pyg_clusters.inference.run import FIGURES, METRICS, PREDICTIONS, Run
from pyg_clusters.inference.scoring import score_blocks
from pyg_clusters.metrics import energy_metrics, reliability_rows
from pyg_clusters.models.checkpoint import usable_device, weights_hash
from pyg_clusters.models.contract import extra_arguments
from pyg_clusters.options.training import EvaluateOptions
from pyg_clusters.positions import centred


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Compute errors of a trained model, on the test set of its run or on labelled frames.

    The errors of a run are written to ``test_metrics.json`` in its folder, with predictions and figures; those on
    frames to ``options.out``, if given.

    Raises:
        InputError: If the model, run or label does not exist, a frame cannot be used, or the model is not calibrated.

    Example:
        >>> from pyg_clusters.options.training import EvaluateOptions
        >>> evaluate(EvaluateOptions(run="runs/dart")).overall["mae_kcal_mol"]  # doctest: +SKIP
        5.4
    """
    run = Run(options.run)
    if not options.frames:
        with open_output(options, run.path, results=()):
            return evaluate_run(run, options.device, options.coverage)
    with open_output(options):
        check_named_once(options.frames)
        try:
            evaluation = _evaluate_frames(run, options)
        except MissingProperty as error:
            if options.target is not None or options.forces is not None:
                raise
            remedy = "name the label with --target, or leave such frames out: --on-bad skip"
            raise InputError(f"{error}; {remedy}") from error
        if options.out is not None:
            evaluation.write(Path(options.out))
        return evaluation


def evaluate_run(run: Run, device: str | None = None, coverage: float | None = None) -> Evaluation:
    """Compute errors on the test set of a run, and write them into its folder with predictions and figures.

    Args:
        run: Run, or ensemble of runs.
        device: Device; by default CUDA if available.
        coverage: Coverage of intervals, for calibrated models.
    """
    calibration = None if coverage is None else run.calibration(coverage)
    clusters = run.split.test
    if clusters.numel() == 0:
        raise InputError(f"{run.path}: the test part of the split is empty; give files of labelled frames")
    batch = run.data.batches.stored(clusters.tolist())
    if "pos" in batch:
        prediction = run.data_predictor(device, calibration)(batch)
    else:  # published descriptors: a graph without positions
        prediction = _predict_graphs(run, clusters, usable_device(device))
    compared = Compared(
        prediction.values.numpy(),
        run.data.labels(batch).numpy(),
        None if prediction.spread is None else prediction.spread.numpy(),
        batch.z.numpy(),
        batch.pos.numpy() if "pos" in batch else None,
        batch.ptr.numpy(),
        run.data.groups(clusters),
        run.data.per_atom,
    )
    training_set = TrainingSet.of(run.data)
    evaluation = evaluation_of(f"test set of {run.path}", compared, training_set, calibration, coverage)
    if not compared.per_atom:
        evaluation.by_file = _errors_by_file(run, clusters, compared)
    if "force" in batch:
        predictor = run.predictor(device)
        with suppress(InputError):  # a model without forces, of the energies of these data
            check_forces(predictor)
            forces = forces_of(predictor, batch.z, batch.pos, batch.ptr)
            evaluation.further["forces"] = force_errors(forces, batch.force.numpy())
    write_table(run.path / PREDICTIONS, _table(clusters.numpy(), compared))
    if not compared.per_atom:
        figures = run_figures(run.path, compared.predicted, compared.target, compared.sizes)
        if calibration is not None:
            atoms, groups = compared.intervals_of
            half_width = partial(calibration.half_width, sizes=atoms, spread=compared.spread)
            figures["reliability"] = reliability(reliability_rows(compared.error, half_width, groups))
        for name, figure in figures.items():
            save_figure(figure, run.path / FIGURES / f"{name}.png")
    evaluation.write(run.path / METRICS, weights=weights_hash(run.path))
    return evaluation


def _evaluate_frames(run: Run, options: EvaluateOptions) -> Evaluation:
    calibration = None if options.coverage is None else run.calibration(options.coverage)
    predictor = run.predictor(options.device, calibration)
    per_atom = predictor.per_atom
    if per_atom and options.energy_unit is not None:
        raise InputError("--energy-unit is for energies, but this model predicts shieldings in ppm: omit it")
    if options.forces is not None:
        check_forces(predictor)
    target = options.target or run.target or ("nmr_shielding" if per_atom else "binding_energy")
    units = None if per_atom else units_of_labels(options.frames, target, options.energy_unit)
    force_name, remarks = options.forces or run.forces, []
    try:
        blocks = _read(options, target, force_name, units)
        if options.forces is None and (frame := _lacks(blocks, force_name)):
            raise MissingProperty(str(frame))
    except MissingProperty as error:
        if options.forces is not None or run.forces is None:
            raise
        blocks, force_name = _read(options, target, None, units), None
        remarks = [f"no errors of forces: {error}"]
    compared, forces = _compare(predictor, blocks, options, target, force_name, units)
    training_set = None
    if run.has_data:
        with suppress(InputError), warnings.catch_warnings():  # the data set may be no longer available
            warnings.simplefilter("ignore")  # they were given when the model was trained
            training_set = TrainingSet.of(run.data)
    title = f"{run.path} on {', '.join(options.frames)}"
    evaluation = evaluation_of(title, compared, training_set, calibration, options.coverage)
    evaluation.remarks += remarks
    if forces is not None:
        assert compared.pos is not None
        pos = centred(compared.pos, compared.ptr)
        predicted = forces_of(predictor, *(torch.from_numpy(array) for array in (compared.z, pos, compared.ptr)))
        evaluation.further["forces"] = force_errors(predicted, forces)
        evaluation.remarks += force_remarks(predicted, forces)
    return evaluation


def _read(
    options: EvaluateOptions, target: str, forces: str | None, units: Mapping[str, float] | None
) -> list[FrameBlock]:
    """Frames with their labels, energies in ``units`` by file or shieldings, and with the forces of this name.

    For a coverage they also have the value ``group``, if all frames have one.
    """
    if units and forces:
        for file, unit in units.items():
            check_stated_force_unit(Path(file), forces, unit)
    read = partial(
        read_blocks,
        options.frames,
        atom_properties=[name for name in (target if units is None else None, forces) if name],
        on_bad=options.on_bad,
        on_missing=options.on_bad,
        fragments=options.fragments,
    )
    names = [] if units is None else [target]
    if options.coverage is not None:
        with suppress(MissingProperty):
            blocks = list(read(properties=[*names, "group"]))
            if not _lacks(blocks, "group"):
                return blocks
    return list(read(properties=names))


def _lacks(blocks: list[FrameBlock], name: str | None) -> UnlabelledFrame | None:
    """First frame that was left out because it has no value of this name."""
    left_out = (frame for block in blocks for frame in block.unreadable if isinstance(frame, UnlabelledFrame))
    return next((frame for frame in left_out if frame.key == name), None)


def _compare(
    predictor: Predictor,
    frames: list[FrameBlock],
    options: EvaluateOptions,
    target: str,
    forces: str | None,
    units: Mapping[str, float] | None,
) -> tuple[Compared, np.ndarray | None]:
    """Predictions and labels of frames, and the forces of the frames ``[num_atoms, 3]`` in eV/Å, if they are named."""
    blocks, bad, labels, forces_of_blocks = [], [], [], []
    for scored in score_blocks(predictor, frames, options.on_bad):
        block = scored.with_finite(target, options.on_bad)
        block = block.with_finite(forces, options.on_bad) if forces else block
        bad += block.bad
        if not len(block.frames):
            continue
        blocks.append(block)
        unit = 1.0 if units is None else units[block.frames.file]
        labels.append(atom_numbers(block.frames, target) if units is None else numbers(block.frames, target) * unit)
        if forces:
            forces_of_blocks.append(force_labels(block.frames, forces) * unit)
    if not blocks:
        raise no_usable_frame(options.frames, bad)
    list_bad(bad)
    z, pos, ptr = flat_arrays([block.frames for block in blocks])
    spreads = [block.spread for block in blocks if block.spread is not None]
    compared = Compared(
        np.concatenate([block.shielding if units is None else block.energy for block in blocks]),
        np.concatenate(labels),
        np.concatenate(spreads) if spreads else None,
        z,
        pos,
        ptr,
        np.arange(len(ptr) - 1) if options.coverage is None else _groups([block.frames for block in blocks]),
        units is None,
    )
    return compared, np.concatenate(forces_of_blocks) if forces else None


def _groups(blocks: list[FrameBlock]) -> np.ndarray:
    """Group of each frame ``[num_frames]``, within which errors are alike, for the standard error of a coverage.

    It is the value ``group`` if all frames have one, as in a training set; else the file if there are several, and each
    frame is a group if there is only one.
    """
    if all("group" in block.properties for block in blocks):
        groups = [group_label(value) for block in blocks for value in block.properties["group"]]
        if None not in groups:
            return np.array(groups, dtype=object)
    files = np.concatenate([np.full(len(block), block.file, dtype=object) for block in blocks])
    return files if len(set(files)) > 1 else np.arange(len(files))


def _table(clusters: np.ndarray, compared: Compared) -> dict[str, np.ndarray]:
    """Columns of ``test_predictions.csv``."""
    sizes = compared.sizes
    if compared.per_atom:
        name = "nmr_shielding"
        atoms = np.concatenate([np.arange(size) for size in sizes])
        table = {"idx": clusters.repeat(sizes), "size": sizes.repeat(sizes), "atom": atoms}
    else:
        name = "energy"
        table = {"idx": clusters, "size": sizes}
    table |= {name: compared.target, f"pred_{name}": compared.predicted}
    if not compared.per_atom and compared.kinds.dtype.kind == "U":
        table["composition"] = compared.kinds
    if compared.spread is not None:
        table[f"pred_{name}_spread"] = compared.spread
    return table


def _errors_by_file(run: Run, clusters: Tensor, compared: Compared) -> list[dict[str, Any]]:
    """Errors of each file, for data sets of several files."""
    all_files = getattr(run.dataset, "file_of_cluster", torch.zeros(len(run.dataset), dtype=torch.long))
    file_of_cluster = all_files[clusters].numpy()
    present = np.unique(file_of_cluster)
    if len(present) < 2:
        return []
    columns = (compared.predicted, compared.target, compared.sizes, compared.kinds)
    names = short_names(run.dataset.files)
    masks = {names[str(run.dataset.files[index])]: file_of_cluster == index for index in present}
    return [{"file": name, **energy_metrics(*(column[mask] for column in columns))} for name, mask in masks.items()]


@torch.no_grad()
def _predict_graphs(run: Run, clusters: Tensor, device: torch.device) -> Prediction:
    """Energies of clusters without positions, from graphs stored in the data set."""
    model = run.model.to(device)
    energies, num_atoms = [], 0
    for part in clusters.split(run.data.batch_size):
        batch = run.data.batches[part.tolist()].to(device)
        kwargs = {name: batch[name] for name in extra_arguments(model) if name in batch}
        energies.append(model(batch.z, batch.get("pos"), batch.batch, **kwargs))
        num_atoms += batch.batch.numel()
    return Prediction(torch.cat(energies).cpu(), clusters.numel(), num_atoms, type(model).__name__)
