"""``pyg-clusters screen``."""

import os
from collections.abc import Sequence

from jsonargparse import Namespace

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, Frames, Parts
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.inference.engines import job_settings, score_resumably
from pyg_clusters.inference.loading import load_calibration, load_predictor
from pyg_clusters.inference.scoring import check_numbers, with_progress
from pyg_clusters.options.common import EngineOptions
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.screening.bins import warn_of_narrow_bins
from pyg_clusters.screening.dft_inputs import check_format, write_folders
from pyg_clusters.screening.files import write_candidates
from pyg_clusters.screening.options import BINNED, BINS, add_screening_options, check_screening_options
from pyg_clusters.screening.relaxation import check_forces
from pyg_clusters.screening.report import write_report
from pyg_clusters.screening.strategy_options import check_spread, screen_frames

RESULTS = ("candidates.extxyz", "candidates.csv", "report.html")


def run(argv: Sequence[str]):
    """Picks candidates of each cluster size and writes them with a report."""
    parser = verb_parser(
        "screen",
        "The lowest-energy candidates among the frames of trajectories, by cluster size (of alloys by composition): "
        "candidates.extxyz, "
        "candidates.csv (source_file, source_frame, size, pred_rank, pred_energy, pred_energy_spread if the model "
        "tells, pred_reason) and report.html. With --relax they are relaxed; initial_pred_energy, model_energy, "
        "model_fmax, model_steps and converged tell how.",
        "pyg-clusters screen runs/dart md.extxyz --top 100 --out screening",
    )
    add_screening_options(parser)
    options = parse(parser, argv)
    check_screening_options(options)
    folders = []
    if options.write:
        check_format(options.write)
        folders.append(options.out / options.write)
    with open_output(
        options.out,
        ("screen", *argv),
        inputs=options.frames,
        overwrite=options.overwrite,
        results=RESULTS,
        new_folders=folders,
    ) as again:
        screen(options, again)


def screen(options: Namespace, again: bool = False):
    """Screen the frames that are not scored yet, and write the candidates of all of them.

    Args:
        options: Of the command line.
        again: Whether the folders of candidates that are there are those of the same command.
    """
    calibration = load_calibration(options.model) if options.choose == "uncertain" else None
    predictor = load_predictor(options.model, "cpu" if options.engine == "ray" else options.device, calibration)
    check_spread(options, predictor)
    if options.relax:
        check_forces(predictor)
    frames = Frames.open(
        options.frames,
        properties=[options.truth] if options.truth else [],
        with_atoms=options.choose not in BINNED,
        on_bad=options.on_bad,
        fragments=options.fragments,
    )
    parts = Parts(options.out / "scores.unfinished", job_settings(predictor, frames), overwrite=options.overwrite)
    engine = EngineOptions(engine=options.engine, address=options.address, device=options.device)
    blocks = score_resumably(predictor, frames, parts, engine)
    if options.truth:
        blocks = (check_numbers(block, options.truth) for block in blocks)
    bad: list[BadFrame] = []
    screening = screen_frames(with_progress(blocks, bad), options, predictor)
    list_bad(bad)
    if not screening.candidates:
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to choose from")
    if options.choose == "bins":
        warn_of_narrow_bins(screening, options.bins or BINS, options.model)
    write_candidates(screening, options.out, options.truth)
    bins = (options.bins or BINS) if options.choose == "bins" else None
    write_report(screening, options.out, predictor, options.model, options.truth, options.choose, bins)
    if options.write:
        structures = [candidate.atoms for candidate in screening.candidates]
        write_folders(options.out / options.write, structures, options.write, options.vacuum, overwrite=again)
    parts.remove()
    print(f"{len(screening.candidates)} candidates of {len(screening.energy)} frames in {options.out}:")
    for name in RESULTS:
        print(f"  {options.out / name}")
    if options.write:
        print(f"  {options.out / options.write}{os.sep} (a folder each)")
