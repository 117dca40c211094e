"""Predictions for frames of files."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, Frames, Parts, Shard
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.reader import BLOCK_SIZE
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference.calibration import Uncertainty
from pyg_clusters.inference.engines import job_settings, score_by_engine
from pyg_clusters.inference.merge import record_of, write_record
from pyg_clusters.inference.prediction_files import FORMATS, PredictionFormat
from pyg_clusters.inference.run import Run
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.options.parsing import command_words
from pyg_clusters.options.predict import PredictOptions
from pyg_clusters.progress import counting


@dataclass(frozen=True)
class Predicted:
    """Result of :func:`predict`.

    Attributes:
        num_frames: Number of frames with predictions.
        bad: Frames that were left out.
        num_flagged: Number of frames that are outside the training set of the model, if that is known.
        record: File beside the predictions of a part that lists its blocks.
    """

    num_frames: int
    bad: list[BadFrame]
    num_flagged: int | None = None
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
    overwrite = options.overwrite or Parts.is_started(folder)
    command = command_words("predict", options)
    with open_output(out, command, inputs=options.frames, overwrite=overwrite):
        return _predict(options, out, shard, folder)


def _predict(options: PredictOptions, out: Path, shard: Shard | None, folder: Path) -> Predicted:
    model = Run(options.model)
    calibration = model.calibration(options.coverage)
    device = "cpu" if options.engine == "ray" else options.device
    predictor = model.predictor(device, calibration if options.coverage else None)
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
    settings = {**job_settings(predictor, frames), "shard": options.shard, **uncertainty.settings()}
    parts = Parts(folder, settings, overwrite=options.overwrite)
    if parts.num_parts:
        print(f"resuming after {parts.num_frames:,} frames", file=sys.stderr)
    each = partial(_encoded, style, uncertainty)
    blocks = score_by_engine(
        predictor, frames, options, each=each, start=parts.next_position, shard=shard, trained=uncertainty.range
    )
    try:
        for block in counting(blocks, lambda block: block[1]):
            parts.add(*block)
    except InputError as error:
        if parts.num_parts:
            raise InputError(f"{error}; the {parts.num_frames:,} finished frames are kept in {folder}") from error
        raise
    if not parts.num_frames and shard is None:
        list_bad(parts.bad)
        parts.remove()
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to predict")
    style.write(out, (results for _, results in parts))
    if shard is not None:
        write_record(out, shard, style, settings, (part for part, _ in parts))
    parts.remove()
    flagged = None if uncertainty.range is None else parts.num_flagged
    return Predicted(parts.num_frames, parts.bad, flagged, None if shard is None else record_of(out))


def _encoded(
    style: PredictionFormat, uncertainty: Uncertainty, scored: ScoredBlock
) -> tuple[tuple[int, int], int, bytes, list[BadFrame], int]:
    """Position, number of frames, results, bad and flagged frames of a block, for :meth:`Parts.add`."""
    results = style.encode(scored, uncertainty.columns(scored))
    return scored.frames.place, len(scored.frames), results, scored.bad, scored.num_flagged
