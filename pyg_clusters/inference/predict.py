"""Predictions for the frames of files, and merging of those of a job array."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, file_fingerprint, remove_stale
from pyg_clusters.frames import BadFrame, Frames, Parts, Shard
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.reader import BLOCK_SIZE
from pyg_clusters.frames.resume import Part
from pyg_clusters.frames.writing import WrittenFrames, open_output
from pyg_clusters.inference.calibration import Uncertainty
from pyg_clusters.inference.engines import score_by_engine
from pyg_clusters.inference.flags import text_of_flags
from pyg_clusters.inference.prediction_files import FORMATS, PredictionFormat
from pyg_clusters.inference.run import Run
from pyg_clusters.inference.scoring import ScoredBlock, job_settings
from pyg_clusters.options.inference import MergeOptions, PredictOptions
from pyg_clusters.progress import counting


@dataclass(frozen=True)
class Predicted(WrittenFrames):
    """Result of :func:`predict`.

    Attributes:
        num_flagged: Number of frames that are outside the training set of the model, if that is known.
        record: File beside the predictions of a part that lists its blocks.
    """

    num_flagged: int | None = None
    record: Path | None = None

    def __str__(self) -> str:
        text = super().__str__() + (f" and {self.record.name}" if self.record else "")
        if self.num_flagged:
            text += f"\n{text_of_flags(self.num_flagged, self.num_frames)}: the reasons are in pred_flag"
        return text


def predict(options: PredictOptions) -> Predicted:
    """Predict the energy of every frame, or the shielding of every atom, and write them to a file.

    Finished blocks are kept in ``OUT.unfinished`` until all are finished: the same options resume after the last one.

    Raises:
        InputError: If a frame cannot be used, or the file exists already.

    Example:
        >>> from pyg_clusters.options.inference import PredictOptions
        >>> options = PredictOptions(model="gallium", frames=["md.xyz"], out="predictions.csv")
        >>> predict(options).num_frames  # doctest: +SKIP
        1000
    """
    shard = None if options.shard is None else Shard.parse(options.shard)
    out = Path(options.out)
    folder = out.with_name(out.name + ".unfinished")
    overwrite = options.overwrite or Parts.is_started(folder)
    with open_output(options, overwrite=overwrite):
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
    return Predicted(parts.num_frames, options.out, parts.bad, flagged, None if shard is None else record_of(out))


def _encoded(
    style: PredictionFormat, uncertainty: Uncertainty, scored: ScoredBlock
) -> tuple[tuple[int, int], int, bytes, list[BadFrame], int]:
    """Position, number of frames, results, bad and flagged frames of a block, for :meth:`Parts.add`."""
    results = style.encode(scored, uncertainty.columns(scored))
    return scored.frames.position, len(scored.frames), results, scored.bad, scored.num_flagged


STYLE = ("dtype", "per_atom", "columns")
"""Arguments of :class:`~pyg_clusters.inference.prediction_files.PredictionFormat` in the record of a part."""


def merge(options: MergeOptions) -> WrittenFrames:
    """Merge the predictions of all parts of a job array into the file that one run would have written.

    Raises:
        InputError: If a part is missing, doubled, corrupted or of another job, or the file exists already.
    """
    out = Path(options.out)
    with open_output(options):
        shards = [ShardFile.read(Path(path)) for path in options.parts]
        _check_shards(shards)
        other = next((shard.path for shard in shards if shard.path.suffix != out.suffix), None)
        if other is not None:
            raise InputError(f"{other} is not {out.suffix}; give --out the same ending as the parts")
        parts = [(part, index) for index, shard in enumerate(shards) for part in shard.parts]
        parts.sort(key=lambda entry: entry[0].position)
        _check_blocks([part.position for part, _ in parts], shards)
        style = FORMATS[out.suffix](*(shards[0].head[name] for name in STYLE))
        results = [style.split(shard.path, shard.parts) for shard in shards]
        style.write(out, (next(results[index]) for _, index in parts))
    bad = [frame for part, _ in parts for frame in part.bad]
    return WrittenFrames(sum(part.num_frames for part, _ in parts), options.out, bad)


def record_of(out: Path) -> Path:
    """Record beside the predictions of a part."""
    return out.with_name(out.name + ".shard.jsonl")


def write_record(
    out: Path, shard: Shard, style: PredictionFormat, settings: Mapping[str, object], parts: Iterable[Part]
):
    """Write the record of the part whose predictions are in a file: its blocks, and hashes of itself and of the file.

    Raises:
        InputError: If the record cannot be written.
    """
    remove_stale(record_of(out))
    common = {name: value for name, value in settings.items() if name != "shard"}
    head: dict[str, object] = {"part": [shard.number, shard.count], "dtype": style.dtype}
    head |= {"per_atom": style.per_atom, "columns": style.columns, "settings": common}
    lines = [part.to_json() for part in parts]
    head |= {"predictions": file_fingerprint(out, whole=True), "blocks": len(lines)}
    head["record"] = _hash(head, lines)
    with atomic_write(record_of(out)) as temporary:
        temporary.write_text("\n".join([json.dumps(head), *lines]) + "\n", encoding="utf-8")


def _hash(head: Mapping[str, object], lines: Iterable[str]) -> str:
    hashed = {name: value for name, value in head.items() if name != "record"}
    return hashlib.sha256("\n".join([json.dumps(hashed, sort_keys=True), *lines]).encode()).hexdigest()


@dataclass(frozen=True)
class ShardFile:
    """Predictions of one part of a job array, with the settings of the job and the records of the blocks, in order."""

    path: Path
    head: Mapping[str, Any]
    parts: Sequence[Part]

    @property
    def shard(self) -> Shard:
        """Number of the part, and count of the parts."""
        return Shard(*self.head["part"])

    @classmethod
    def read(cls, path: Path) -> "ShardFile":
        """Read the record of a file, and check both.

        Raises:
            InputError: If the file or its record is missing, or not as ``predict --shard`` wrote it.
        """
        record = record_of(path)
        if not path.is_file() or not record.is_file():
            missing = record if path.is_file() else path
            raise InputError(f"{missing} is missing: parts are what predict --shard wrote, with the .jsonl beside each")
        try:
            first, *lines = record.read_text(encoding="utf-8").splitlines()
            head = json.loads(first)
            parts = [Part.from_json(line) for line in lines]
            sound = head["record"] == _hash(head, lines)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            sound = False
        if not sound:
            raise InputError(f"{record} is corrupted; rerun this part with predict --shard and --overwrite")
        read = cls(path, head, parts)
        if head["predictions"] != file_fingerprint(path, whole=True):
            raise InputError(
                f"{path} is not as predict wrote it (corrupted or edited); rerun it with --shard {read.shard} and "
                "--overwrite"
            )
        return read


def _check_shards(shards: Sequence[ShardFile]):
    """Check that the parts are all those of one job."""
    first = shards[0]
    count = first.shard.count
    paths: dict[int, Path] = {}
    for each in shards:
        number, of = each.shard.number, each.shard.count
        if of != count:
            raise InputError(f"{each.path} is part {number} of {of}, but {first.path} is one of {count}")
        if number in paths:
            raise InputError(f"{each.path} and {paths[number]} are both part {number} of {count}; give each once")
        paths[number] = each.path
        before, this = ({**one.head["settings"], **{name: one.head[name] for name in STYLE}} for one in (first, each))
        for name in {**before, **this}:
            if before.get(name) != this.get(name):
                raise InputError(
                    f"{each.path} was made with {name} = {this.get(name)!r}, but {first.path} with "
                    f"{before.get(name)!r}; rerun one of them"
                )
    missing = sorted(set(range(1, count + 1)) - set(paths))
    if missing:
        raise InputError(f"part {missing[0]} of {count} is missing; run predict --shard {missing[0]}/{count}")


def _check_blocks(positions: Sequence[tuple[int, int]], shards: Sequence[ShardFile]):
    """Check that every block of every file occurs once, in its part."""
    for each in shards:
        for part in each.parts:
            if not each.shard.has(*part.position):
                raise InputError(f"{each.path} has block {part.position}, not of part {each.shard}; rerun it")
    for (file, block), (next_file, next_block) in pairwise([(-1, 0), *positions]):
        following = (file, block + 1) if next_file == file else (next_file, 0)
        if next_file < file or (next_file, next_block) != following:
            shard = next(each.shard for each in shards if each.shard.has(*following))
            missing = f"block {following[1]} of input {following[0]}"
            raise InputError(f"{missing} is in no part; rerun predict --shard {shard} --overwrite")
