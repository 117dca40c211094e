"""Files of predictions for the frames of other files, written from the results of finished blocks."""

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
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.provenance import ENERGY_PREDICTION, SOURCE_FILE, SOURCE_FRAME, set_origin, write_values
from pyg_clusters.frames.reader import BLOCK_SIZE
from pyg_clusters.frames.writing import WrittenFrames, extxyz_text, open_output
from pyg_clusters.inference.calibration import Uncertainty
from pyg_clusters.inference.engines import score_by_engine
from pyg_clusters.inference.flags import text_of_flags
from pyg_clusters.inference.run import Run
from pyg_clusters.inference.scoring import ScoredBlock, job_settings
from pyg_clusters.options.frames import PredictOptions
from pyg_clusters.progress import counting

ROWS_AT_ONCE: int = 1 << 20  # rows of a row group of a Parquet file
ENERGY, SHIELDING = "pred_energy", "pred_nmr_shielding"  # names of predictions

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Predicted(WrittenFrames):
    """Result of :func:`predict`.

    Attributes:
        num_flagged: Number of frames that are outside the training set of the model, if that is known.
    """

    num_flagged: int | None = None

    def __str__(self) -> str:
        text = super().__str__()
        if self.num_flagged:
            text += f"\n{text_of_flags(self.num_flagged, self.num_frames)}: the reasons are in pred_flag"
        return text


def predict(options: PredictOptions) -> Predicted:
    """Predict the energy of every frame, or the shielding of every atom, and write them to a file.

    Finished blocks are kept in ``OUT.unfinished`` until all are finished: the same options resume after the last one.

    Raises:
        InputError: If a frame cannot be used, or the file exists already.

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
        list_bad(parts.bad)
        parts.remove()
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to predict")
    style.write(out, (results for _, results in parts))
    parts.remove()
    flagged = None if uncertainty.range is None else parts.num_flagged
    return Predicted(parts.num_frames, options.out, parts.bad, flagged)


def _encoded(
    style: "PredictionFormat", uncertainty: Uncertainty, scored: ScoredBlock
) -> tuple[tuple[int, int], int, bytes, list[BadFrame], int]:
    """Position, number of frames, results, bad and flagged frames of a block, for :meth:`Parts.add`."""
    results = style.encode(scored, uncertainty.columns(scored))
    return scored.frames.position, len(scored.frames), results, scored.bad, scored.num_flagged


class PredictionFormat(ABC):
    """Format of a file of predictions, which is written from the results of finished parts.

    Args:
        dtype: Name of the type of the predictions.
        per_atom: Whether there is a prediction per atom (a shielding) rather than per frame.
        columns: Types of further columns by name, as Arrow calls them.
    """

    with_atoms: bool = False
    """Whether the frames are needed as ASE objects."""

    def __init__(self, dtype: str = "float32", per_atom: bool = False, columns: Mapping[str, str] | None = None):
        self.dtype = dtype
        self.per_atom = per_atom
        self.columns = dict(columns or {})

    @abstractmethod
    def encode(self, scored: ScoredBlock, columns: Columns) -> bytes:
        """Results of a block.

        Args:
            scored: Its frames and predictions.
            columns: Values of the further columns by name, ``[num_frames]`` or ``[num_atoms]``.
        """

    @property
    def head(self) -> bytes:
        """First bytes of the file, before the results of the parts."""
        return b""

    def write(self, out: Path, results: Iterable[bytes]):
        """Write the file from the results of all parts, in order.

        Raises:
            InputError: If it cannot be written.
        """
        with atomic_write(out) as temporary, temporary.open("wb") as stream:
            stream.write(self.head)
            stream.writelines(results)


class TableFormat(PredictionFormat):
    """A row per frame, or per atom."""

    def table(self, scored: ScoredBlock, columns: Columns) -> pyarrow.Table:
        """Rows of a block."""
        frames = scored.frames
        files, indices = frames.origins
        row = frames.frame_of_atom if self.per_atom else np.arange(len(frames))
        atoms = np.arange(len(row)) - frames.ptr[row]
        values = scored.shielding if self.per_atom else scored.energy
        return self._table(files[row], indices[row], frames.sizes[row], atoms, values, columns)

    @property
    def no_rows(self) -> pyarrow.Table:
        """Empty table, with the columns of all others."""
        none = np.zeros(0, dtype=np.int64)
        further = dict.fromkeys(self.columns, none.astype(object))
        return self._table(none.astype(str), none, none, none, none.astype(self.dtype), further)

    def _table(
        self,
        files: np.ndarray,
        indices: np.ndarray,
        sizes: np.ndarray,
        atoms: np.ndarray,
        values: np.ndarray,
        columns: Columns,
    ) -> pyarrow.Table:
        if self.per_atom:
            predicted = {"atom": atoms, SHIELDING: values}
        else:
            predicted = {ENERGY: values, f"{ENERGY}_per_atom": values / sizes}
        types = {SOURCE_FILE: "string", SOURCE_FRAME: "int64", **self.columns}
        arrays = {SOURCE_FILE: files, SOURCE_FRAME: indices, "size": sizes, **predicted}
        arrays |= {name: columns[name] for name in self.columns}
        aliases = {name: pyarrow.type_for_alias(types[name]) if name in types else None for name in arrays}
        return pyarrow.table({name: pyarrow.array(values, aliases[name]) for name, values in arrays.items()})


class CsvFormat(TableFormat):
    """Comma-separated values."""

    @property
    def head(self) -> bytes:
        return _csv(self.no_rows, header=True)

    def encode(self, scored: ScoredBlock, columns: Columns) -> bytes:
        return _csv(self.table(scored, columns), header=False)


def _csv(table: pyarrow.Table, header: bool) -> bytes:
    stream = BytesIO()
    pyarrow.csv.write_csv(table, stream, pyarrow.csv.WriteOptions(include_header=header))
    return stream.getvalue()


class ParquetFormat(TableFormat):
    """Parquet, written from tables in Arrow's stream format."""

    def encode(self, scored: ScoredBlock, columns: Columns) -> bytes:
        table, stream = self.table(scored, columns), BytesIO()
        with pyarrow.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        return stream.getvalue()

    def write(self, out: Path, results: Iterable[bytes]):
        rows = self.no_rows
        with atomic_write(out) as temporary, pyarrow.parquet.ParquetWriter(temporary, rows.schema) as writer:
            waiting, num_rows = [rows], 0
            for data in results:
                waiting.append(pyarrow.ipc.open_stream(data).read_all())
                num_rows += len(waiting[-1])
                if num_rows >= ROWS_AT_ONCE:
                    table = pyarrow.concat_tables(waiting)
                    writer.write_table(table[:ROWS_AT_ONCE].combine_chunks())
                    waiting, num_rows = [table[ROWS_AT_ONCE:]], num_rows - ROWS_AT_ONCE
            writer.write_table(pyarrow.concat_tables(waiting).combine_chunks())


class ExtxyzFormat(PredictionFormat):
    """Copies of the frames with all that they hold, and the predictions."""

    with_atoms = True

    def encode(self, scored: ScoredBlock, columns: Columns) -> bytes:
        frames, texts = scored.frames, []
        files, indices = frames.origins
        for index, atoms in enumerate(frames.atoms or ()):
            set_origin(atoms.info, str(files[index]), int(indices[index]))
            if self.per_atom:
                own = slice(frames.ptr[index], frames.ptr[index + 1])
                values = {name: columns[name][own] for name in self.columns}
                write_values(atoms.arrays, {SHIELDING: scored.shielding[own]} | values, replaced=(SHIELDING,))
            else:
                numbers = {name: columns[name][index].item() for name in self.columns}
                write_values(atoms.info, {ENERGY: float(scored.energy[index])} | numbers, replaced=ENERGY_PREDICTION)
            texts.append(extxyz_text(atoms, f"{frames.file}, frame {frames.number[index]}"))
        return "".join(texts).encode()


FORMATS: dict[str, type[PredictionFormat]] = {".csv": CsvFormat, ".parquet": ParquetFormat, ".extxyz": ExtxyzFormat}
"""Formats of predictions by suffix."""
