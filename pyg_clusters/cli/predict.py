"""``pyg-clusters predict``."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from pyg_clusters.cli.uncertainty import add_coverage_option, calibration_for
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, BlockLog, Frames, Shard
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.frames.reader import BLOCK_SIZE
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.prediction_files import PredictionFormat, format_of
from pyg_clusters.inference.ray_engine import score_on_ray
from pyg_clusters.inference.run import predictor_of
from pyg_clusters.inference.run_settings import settings_of
from pyg_clusters.inference.scoring import ScoredBlock, score_frames
from pyg_clusters.inference.shards import shard_file, write_shard
from pyg_clusters.inference.uncertainty import Uncertainty
from pyg_clusters.options.common import add_engine_options, add_frame_options, check_engine_options
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.progress import counting

FREE = ("on_bad",)
"""Settings that may change when a run goes on."""


def run(argv: Sequence[str]):
    """Writes the predicted energy of every frame, or the shielding of every atom."""
    parser = verb_parser(
        "predict",
        "Energies of frames, as a table or added to what the frames hold already (.extxyz): source_file and "
        "source_frame (where the frame was first read, from 0), number of atoms, pred_energy (eV), "
        "pred_energy_per_atom (eV). A model of shieldings gives pred_nmr_shielding (ppm): a row per atom, with its "
        "number in the frame (from 0), or an array. An ensemble gives their spread, too (pred_energy_spread); with "
        "--coverage there are pred_energy_low and pred_energy_high (eV), too, or those of pred_nmr_shielding (ppm); "
        "pred_flag says what of a frame the training had not. A run that was stopped goes on with the same command; "
        "with --engine ray the work is spread over the machines of a Ray cluster, or over the cores of this one.",
        "pyg-clusters predict runs/dart md.extxyz --out predictions.csv",
    )
    add_frame_options(parser)
    add_coverage_option(parser)
    parser.add_argument("--topology", type=Path | None, help="file that says what the atoms are, for DCD, XTC, ...")
    parser.add_argument("--shard", type=str | None, help="i/n: only part i of n of the frames, for merge")
    add_engine_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there, and begin anew")
    parser.add_argument("--out", type=Path, required=True, help="predictions.csv, .parquet or .extxyz")
    options = parse(parser, argv)
    check_engine_options(options)
    make_format = format_of(options.out)
    shard = None if options.shard is None else Shard.parse(options.shard)
    folder = options.out.with_name(options.out.name + ".unfinished")
    overwrite = options.overwrite or (folder / "settings.json").exists()
    with open_output(options.out, ("predict", *argv), inputs=options.frames, overwrite=overwrite):
        predict(options, make_format, shard, folder)


def predict(options: Namespace, make_format: type[PredictionFormat], shard: Shard | None, folder: Path):
    """Predict the frames that are not finished yet, and write the file of all of them.

    Args:
        options: Of the command line.
        make_format: Format of the file.
        shard: Part of the frames, if not all.
        folder: Where finished blocks are kept until all are.
    """
    calibration = calibration_for(options.model, options.coverage)
    device = "cpu" if options.engine == "ray" else options.device
    predictor = predictor_of(options.model, device, calibration if options.coverage else None)
    uncertainty = Uncertainty.of(predictor, calibration, options.coverage)
    frames = Frames.open(
        options.frames,
        with_atoms=make_format.with_atoms,
        block_size=BLOCK_SIZE,
        on_bad=options.on_bad,
        topology=options.topology,
        fragments=options.fragments,
    )
    style = make_format(predictor.dtype_name, predictor.per_atom, uncertainty.types)
    settings = settings_of(predictor, frames.paths, frames.wanted)
    settings |= {"shard": options.shard, **uncertainty.settings()}
    log = BlockLog(folder, settings, FREE, head=style.head(), overwrite=options.overwrite)
    if log.num_blocks:
        print(f"going on after {log.num_frames:,} frames", file=sys.stderr)
    where = {"start": log.next_place, "shard": shard, "trained": uncertainty.range}
    try:
        written = _written_blocks(options, predictor, frames, partial(_written, style, uncertainty), where)
        for block in counting(written, lambda block: block.frames):
            log.append(block.place, block.frames, block.results, block.bad)
    except InputError as error:
        if log.num_blocks:
            raise InputError(f"{error}; the {log.num_frames:,} frames that are done are kept in {folder}") from error
        raise
    if not log.num_frames and shard is None:
        list_bad(log.bad)
        log.remove()
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to predict")
    log.begin()
    style.finish(log.results, options.out)
    if shard is not None:
        write_shard(options.out, shard, style, settings, log)
    list_bad(log.bad)
    print(f"{log.num_frames} frames in {options.out}" + (f" and {shard_file(options.out).name}" if shard else ""))
    log.remove()


class Written(NamedTuple):
    """What is written of a block."""

    place: tuple[int, int]
    """Numbers of its file and of the block in it."""
    frames: int
    """Number of its frames that were used."""
    results: bytes
    """As the file of predictions has them."""
    bad: list[BadFrame]
    """Frames that were left out."""


def _written(style: PredictionFormat, uncertainty: Uncertainty, scored: ScoredBlock) -> Written:
    results = style.block(scored, uncertainty.columns(scored))
    return Written(scored.frames.place, len(scored.frames), results, scored.bad)


def _written_blocks(
    options: Namespace,
    predictor: Predictor,
    frames: Frames,
    each: Callable[[ScoredBlock], Written],
    where: Mapping[str, Any],
) -> Iterator[Written]:
    """The blocks in order, by the engine that is asked for."""
    if options.engine == "ray":
        given = {"device": options.device, "address": options.address}
        return score_on_ray(predictor, frames, each=each, **given, **where)
    return map(each, score_frames(predictor, frames, **where))


def with_progress(blocks: Iterable[ScoredBlock], bad: list[BadFrame]) -> Iterator[ScoredBlock]:
    """Passes blocks on, counts their frames on standard error if that is a terminal, and collects bad frames."""
    for block in counting(blocks, lambda block: len(block.frames)):
        bad += block.bad
        yield block
