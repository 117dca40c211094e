"""Prediction for the frames of files, written to a file."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.frames import BadFrame, Frames, Parts, Shard
from pyg_clusters.frames.block import BLOCK_SIZE
from pyg_clusters.frames.checks import no_usable_frame
from pyg_clusters.frames.provenance import ENERGY_PREDICTION, SOURCE_FILE, SOURCE_FRAME, set_origin, write_values
from pyg_clusters.frames.writing import WrittenFrames, extxyz_text, open_output
from pyg_clusters.inference.calibration import Uncertainty
from pyg_clusters.inference.engines import score_by_engine
from pyg_clusters.inference.flags import text_of_flags
from pyg_clusters.inference.run import Run
from pyg_clusters.inference.scoring import ScoredBlock, job_settings
from pyg_clusters.options.frames import PredictOptions
from pyg_clusters.terminal import counting

ROWS_AT_ONCE: int = 1 << 20  # rows of a row group of a Parquet file
ENERGY, SHIELDING, FLAG = "pred_energy", "pred_nmr_shielding", "pred_flag"  # names of predictions

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Predicted(WrittenFrames):
    """Result of :func:`predict`."""

    num_flagged: int | None = None  #: Number of frames outside the range of the training set, if it is known.

    def __str__(self) -> str:
        text = super().__str__()
        if self.num_flagged:
            text += f"\n{text_of_flags(self.num_flagged, self.num_frames)}: the reasons are in pred_flag"
        return text


def predict(options: PredictOptions) -> Predicted:
    """Predict the energy of every frame, or the shielding of every atom, and write them to a file.

    Finished blocks are stored in ``OUT.unfinished`` until all blocks are finished; a call with the same options resumes
    after the last one.

    Raises:
        InputError: If a frame cannot be used, or the file already exists.

    Example:
        >>> from pyg_clusters.options.frames import PredictOptions
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
        parts.remove()
        raise no_usable_frame(options.frames, parts.bad)
    with atomic_write(out) as temporary:
        style.write(temporary, (results for _, results in parts))
    parts.remove()
    flagged = None if uncertainty.range is None else parts.num_flagged
    return Predicted(parts.num_frames, options.out, parts.bad, flagged)


def _encoded(
    style: "PredictionFormat", uncertainty: Uncertainty, scored: ScoredBlock
) -> tuple[tuple[int, int], int, bytes, list[BadFrame], int]:
    """Return position, number of frames, encoded results, bad frames and number of flagged frames of a block."""
    results = style.encode(scored, uncertainty.columns(scored))
    return scored.frames.position, len(scored.frames), results, scored.bad, scored.num_flagged


class PredictionFormat(ABC):
    """Base class of the formats of prediction files.

    Args:
        dtype: Name of the type of the predictions.
        per_atom: Whether predictions are per atom (shieldings) rather than per frame.
        columns: Arrow names of the types of additional columns, by name.
    """

    with_atoms: bool = False
    """Whether the frames are needed as ASE objects."""

    def __init__(self, dtype: str = "float32", per_atom: bool = False, columns: Mapping[str, str] | None = None):
        self.dtype = dtype
        self.per_atom = per_atom
        self.columns = dict(columns or {})

    @abstractmethod
    def encode(self, scored: ScoredBlock, columns: Columns) -> bytes:
        """Encode the results of a block.

        Args:
            scored: Frames and predictions.
            columns: Values of the additional columns by name, ``[num_frames]`` or ``[num_atoms]``.
        """

    @abstractmethod
    def write(self, path: Path, results: Iterable[bytes]):
        """Write a file from the results of all parts, in order."""


class TableFormat(PredictionFormat):
    """Table with a row per frame or per atom; blocks are encoded in the Arrow stream format."""

    @property
    def schema(self) -> pyarrow.Schema:
        """Columns and their types."""
        predicted = {ENERGY: self.dtype, f"{ENERGY}_per_atom": "float64"}
        if self.per_atom:
            predicted = {"atom": "int64", SHIELDING: self.dtype}
        types = {SOURCE_FILE: "string", SOURCE_FRAME: "int64", "size": "int64", **predicted, **self.columns}
        return pyarrow.schema([(name, pyarrow.type_for_alias(alias)) for name, alias in types.items()])

    def encode(self, scored: ScoredBlock, columns: Columns) -> bytes:
        frames = scored.frames
        files, indices = frames.origins
        row = frames.frame_of_atom if self.per_atom else np.arange(len(frames))
        sizes = frames.sizes[row]
        if self.per_atom:
            predicted = {"atom": np.arange(len(row)) - frames.ptr[row], SHIELDING: scored.shielding}
        else:
            predicted = {ENERGY: scored.energy, f"{ENERGY}_per_atom": scored.energy / sizes}
        arrays = {SOURCE_FILE: files[row], SOURCE_FRAME: indices[row], "size": sizes, **predicted, **columns}
        table, stream = pyarrow.table(arrays, self.schema), BytesIO()
        with pyarrow.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        return stream.getvalue()


class CsvFormat(TableFormat):
    """Comma-separated values."""

    def write(self, path: Path, results: Iterable[bytes]):
        with pyarrow.csv.CSVWriter(path, self.schema) as writer:
            for data in results:
                writer.write_table(pyarrow.ipc.open_stream(data).read_all())


class ParquetFormat(TableFormat):
    """Parquet."""

    def write(self, path: Path, results: Iterable[bytes]):
        with pyarrow.parquet.ParquetWriter(path, self.schema) as writer:
            waiting, num_rows = [self.schema.empty_table()], 0
            for data in results:
                waiting.append(pyarrow.ipc.open_stream(data).read_all())
                num_rows += len(waiting[-1])
                if num_rows >= ROWS_AT_ONCE:
                    table = pyarrow.concat_tables(waiting)
                    writer.write_table(table[:ROWS_AT_ONCE].combine_chunks())
                    waiting, num_rows = [table[ROWS_AT_ONCE:]], num_rows - ROWS_AT_ONCE
            writer.write_table(pyarrow.concat_tables(waiting).combine_chunks())


class ExtxyzFormat(PredictionFormat):
    """Extended XYZ with copies of the frames, all their values and the predictions."""

    with_atoms = True

    def encode(self, scored: ScoredBlock, columns: Columns) -> bytes:
        frames, texts = scored.frames, []
        files, indices = frames.origins
        for index, atoms in enumerate(frames.atoms or ()):
            set_origin(atoms.info, str(files[index]), int(indices[index]))
            if self.per_atom:
                own = slice(frames.ptr[index], frames.ptr[index + 1])
                values = {name: columns[name][own] for name in self.columns}
                if FLAG in values:
                    write_values(atoms.info, {FLAG: values.pop(FLAG)[0].item()})
                write_values(atoms.arrays, {SHIELDING: scored.shielding[own]} | values, replaced=(SHIELDING,))
            else:
                numbers = {name: columns[name][index].item() for name in self.columns}
                write_values(atoms.info, {ENERGY: float(scored.energy[index])} | numbers, replaced=ENERGY_PREDICTION)
            texts.append(extxyz_text(atoms, f"{frames.file}, frame {frames.number[index]}"))
        return "".join(texts).encode()

    def write(self, path: Path, results: Iterable[bytes]):
        with path.open("wb") as stream:
            stream.writelines(results)


FORMATS: dict[str, type[PredictionFormat]] = {".csv": CsvFormat, ".parquet": ParquetFormat, ".extxyz": ExtxyzFormat}
"""Formats of predictions by suffix."""
