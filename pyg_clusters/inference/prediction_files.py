"""Files of predictions, written from the results of finished parts."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.frames.provenance import ENERGY_PREDICTION, SOURCE_FILE, SOURCE_FRAME, set_origin, write_values
from pyg_clusters.frames.resume import Part
from pyg_clusters.frames.writing import extxyz_text
from pyg_clusters.inference.scoring import ScoredBlock

ROWS_AT_ONCE: int = 1 << 20
"""Rows of a row group of a Parquet file."""

ENERGY, SHIELDING = "pred_energy", "pred_nmr_shielding"
"""Names of predictions."""

Columns = Mapping[str, np.ndarray]


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

    def split(self, path: Path, parts: Iterable[Part]) -> Iterator[bytes]:
        """Results of the parts of a file, in order."""
        with path.open("rb") as stream:
            stream.seek(len(self.head))
            for part in parts:
                yield stream.read(part.length)


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
        return _arrow(self.table(scored, columns))

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

    def split(self, path: Path, parts: Iterable[Part]) -> Iterator[bytes]:
        if self.per_atom:
            raise InputError(f"{path}: rows of atoms cannot be merged in Parquet; let the parts be .csv or .extxyz")
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        rows = self.no_rows
        for part in parts:
            while len(rows) < part.num_frames:
                rows = pyarrow.concat_tables([rows, pyarrow.Table.from_batches([next(batches)])])
            yield _arrow(rows[: part.num_frames])
            rows = rows[part.num_frames :]


def _arrow(table: pyarrow.Table) -> bytes:
    stream = BytesIO()
    with pyarrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


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
