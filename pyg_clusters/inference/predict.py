"""Predictions for frames of files."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, BlockLog, Frames, Shard
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.frames.reader import BLOCK_SIZE
from pyg_clusters.inference.loading import load_calibration, load_predictor
from pyg_clusters.inference.prediction_files import FORMATS, PredictionFormat
from pyg_clusters.inference.ray_engine import score_on_ray
from pyg_clusters.inference.run_settings import settings_of
from pyg_clusters.inference.scoring import ScoredBlock, score_frames
from pyg_clusters.inference.shards import shard_file, write_shard
from pyg_clusters.inference.uncertainty import Uncertainty
from pyg_clusters.options.parsing import command_words
from pyg_clusters.options.predict import PredictOptions
from pyg_clusters.progress import counting


@dataclass(frozen=True)
class Predicted:
    """Result of :func:`predict`.

    Attributes:
        num_frames: Number of frames with predictions.
        bad: Frames that were left out.
        record: File beside the predictions of a part that lists its blocks.
    """

    num_frames: int
    bad: list[BadFrame]
    record: Path | None = None


def predict(options: PredictOptions) -> Predicted:
    """Predict the energy of every frame, or the shielding of every atom, and write them to a file.

    Finished blocks are kept in ``OUT.unfinished`` until all are finished: the same options resume after the last one.

    Raises:
        InputError: If a frame cannot be used, or the file exists already.

    Example:
        >>> from pyg_clusters.options.predict import PredictOptions
        >>> options = PredictOptions(model="gallium", frames=["md.xyz"], out="predictions.csv")
        >>> predict(options).num_frames  # doctest: +SKIP
        1000
    """
    shard = None if options.shard is None else Shard.parse(options.shard)
    out = Path(options.out)
    folder = out.with_name(out.name + ".unfinished")
    overwrite = options.overwrite or (folder / "settings.json").exists()
    command = command_words("predict", options)
    with open_output(out, command, inputs=options.frames, overwrite=overwrite):
        return _predict(options, out, shard, folder)


def _predict(options: PredictOptions, out: Path, shard: Shard | None, folder: Path) -> Predicted:
    calibration = load_calibration(options.model, options.coverage)
    device = "cpu" if options.engine == "ray" else options.device
    predictor = load_predictor(options.model, device, calibration if options.coverage else None)
    uncertainty = Uncertainty.of(predictor, calibration, options.coverage)
    make_format = FORMATS[out.suffix]
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
    log = BlockLog(folder, settings, head=style.head(), overwrite=options.overwrite)
    if log.num_blocks:
        print(f"resuming after {log.num_frames:,} frames", file=sys.stderr)
    where = {"start": log.next_place, "shard": shard, "trained": uncertainty.range}
    each = partial(_encoded, style, uncertainty)
    if options.engine == "ray":
        blocks = score_on_ray(predictor, frames, each=each, device=options.device, address=options.address, **where)
    else:
        blocks = map(each, score_frames(predictor, frames, **where))
    try:
        for block in counting(blocks, lambda block: block.frames):
            log.append(*block)
    except InputError as error:
        if log.num_blocks:
            raise InputError(f"{error}; the {log.num_frames:,} finished frames are kept in {folder}") from error
        raise
    if not log.num_frames and shard is None:
        list_bad(log.bad)
        log.remove()
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to predict")
    log.begin()
    style.finish(log.results, out)
    if shard is not None:
        write_shard(out, shard, style, settings, log)
    log.remove()
    return Predicted(log.num_frames, log.bad, None if shard is None else shard_file(out))


class EncodedBlock(NamedTuple):
    """Predictions for a block, as its file has them."""

    place: tuple[int, int]
    """Indices of its file and of the block in it."""
    frames: int
    """Number of its frames that were used."""
    results: bytes
    bad: list[BadFrame]
    """Frames that were left out."""


def _encoded(style: PredictionFormat, uncertainty: Uncertainty, scored: ScoredBlock) -> EncodedBlock:
    results = style.block(scored, uncertainty.columns(scored))
    return EncodedBlock(scored.frames.place, len(scored.frames), results, scored.bad)
