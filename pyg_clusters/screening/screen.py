"""Selection of candidates for DFT calculations among the frames of trajectories."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, Parts
from pyg_clusters.frames.block import arrays_of
from pyg_clusters.frames.checks import no_usable_frame
from pyg_clusters.frames.energy_units import units_of_labels
from pyg_clusters.frames.paths import check_named_once
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.calibration import flagger_of
from pyg_clusters.inference.engines import score_resumably
from pyg_clusters.inference.predictor import check_forces
from pyg_clusters.inference.run import Run
from pyg_clusters.inference.scoring import ScoredBlock, job_settings
from pyg_clusters.options.parsing import command_words
from pyg_clusters.options.screening import ScreenOptions
from pyg_clusters.screening.candidates import Screening, relax_candidates, write_candidates
from pyg_clusters.screening.dft import check_format, write_folders
from pyg_clusters.screening.pool import ScoredFrames, radii_of, select_of_all, select_of_pool
from pyg_clusters.screening.report import make_report, warn_of_narrow_bins
from pyg_clusters.screening.scores import check_truth
from pyg_clusters.strategies import STRATEGIES, Bins, Strategy
from pyg_clusters.terminal import counting

RESULTS = ("candidates.extxyz", "candidates.csv", "report.html")

RELAXED_POOL = 10  # default size of a pool to relax, in multiples of the number of candidates


def screen(options: ScreenOptions) -> Screening:
    """Select candidates for each cluster size (for alloys, composition) among frames, and write them with a report.

    After an interruption, frames that were already scored with the same options are not scored again.

    Returns:
        The candidates and the predicted energies of all frames.

    Raises:
        InputError: If a file, a frame or the model cannot be used, or results already exist.
    """
    out = Path(options.out)
    if options.write:
        check_format(options.write)
    new_folders = [out / options.write] if options.write else []
    with open_output(options, results=RESULTS, new_folders=new_folders) as again:
        check_named_once(options.frames)
        strategy = STRATEGIES[options.choose].from_options(options)
        model = Run(options.model)
        predictor = _predictor(model, options, strategy)
        frames = _open(options, with_atoms=strategy.pool is not None)
        parts = Parts(out / "scores.unfinished", job_settings(predictor, frames), overwrite=options.overwrite)
        trained = flagger_of(predictor.model, model.calibration())
        truth, units = None, {}
        if options.truth:
            units = units_of_labels(options.frames, options.truth, options.energy_unit)
            truth = options.truth if all(unit == 1 for unit in units.values()) else f"{options.truth}_eV"
        scored = ScoredFrames(strategy, _size_of_pool(options, strategy), radii_of(predictor.model))
        blocks = score_resumably(predictor, frames, parts, options, trained)
        for block in counting(blocks, lambda block: len(block.frames)):
            scored.add(_with_truth(block, options, truth, units) if truth else block)
        screening = replace(_selected(scored, options, predictor), truth=truth)
        if not screening.candidates:
            raise no_usable_frame(options.frames, screening.bad)
        if isinstance(strategy, Bins):
            warn_of_narrow_bins(screening, strategy.bins, model)
        if truth and trained is not None:
            for line in check_zero(screening):
                print(line)
        write_candidates(screening, out)
        report = make_report(screening, out, predictor, model, strategy, shlex.join(command_words(options)))
        report.write(out / "report.html")
        if options.write:
            structures = [candidate.atoms for candidate in screening.candidates]
            write_folders(out / options.write, structures, options.write, options.vacuum, overwrite=again)
        parts.remove()
    screening.files = [str(out / name) for name in RESULTS]
    if options.write:
        screening.files.append(f"{out / options.write}{os.sep} (a folder for each candidate)")
    return screening


def check_zero(screening: Screening) -> list[str]:
    """Warning if the zeros of true and predicted energies of the candidates seem to differ, see :func:`check_truth`."""
    candidates, truth = screening.candidates, str(screening.truth)
    z, _, ptr, _, _ = arrays_of([candidate.atoms for candidate in candidates])
    return check_truth(
        z,
        ptr,
        np.array([candidate.energy for candidate in candidates]),
        np.array([candidate.properties[truth] for candidate in candidates], dtype=float),
        truth,
    )


def _predictor(model: Run, options: ScreenOptions, strategy: Strategy) -> Predictor:
    """Predictor, checked for the spread and the forces that the options require."""
    calibration = model.calibration() if "spread" in strategy.needs else None
    predictor = model.predictor("cpu" if options.engine == "ray" else options.device, calibration)
    if "spread" in strategy.needs and not predictor.gives_spread:
        raise InputError(
            f"{options.model} has no uncertainty estimate, which --choose {strategy.name} needs; train an ensemble "
            "(train --ensemble 5) or, for a single DART, run calibrate --spread last_layer"
        )
    if options.relax:
        check_forces(predictor)
    return predictor


def _with_truth(block: ScoredBlock, options: ScreenOptions, name: str, units: Mapping[str, float]) -> ScoredBlock:
    """Block with true energies in eV, under their name in the files if their unit there is eV."""
    key = str(options.truth)
    block = block.with_energies(key, options.on_bad, units[block.frames.file])
    block.frames.properties = {name: block.frames.properties[key]}
    return block


def _open(options: ScreenOptions, with_atoms: bool) -> Frames:
    return Frames.open(
        options.frames,
        properties=[options.truth] if options.truth else [],
        with_atoms=with_atoms,
        on_bad=options.on_bad,
        on_missing=options.on_bad,
        fragments=options.fragments,
    )


def _size_of_pool(options: ScreenOptions, strategy: Strategy) -> int | None:
    """Number of frames of each composition to select among; ``None`` for all frames."""
    if strategy.pool is None:
        return None
    return options.pool or options.top * (RELAXED_POOL if options.relax else strategy.pool)


def _selected(scored: ScoredFrames, options: ScreenOptions, predictor: Predictor) -> Screening:
    """Candidates among the scored frames, or with ``options.relax`` among their relaxed structures."""
    screening, strategy = scored.screening(), scored.strategy
    if scored.count is None:
        again = _open(options, with_atoms=True).blocks(report=False)
        return select_of_all(screening, strategy, scored.counts, again)
    if options.relax:
        screening = relax_candidates(screening, predictor, options.fmax, options.steps)
    return select_of_pool(screening, strategy, predictor.model, scored.count, options.relax)
