"""Files of predictions that grow block by block and are put together from parts."""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.frames import FrameBlock
from pyg_clusters.frames.extxyz_text import extxyz_text
from pyg_clusters.frames.provenance import ENERGY_PREDICTION, SOURCE_FILE, SOURCE_FRAME, set_origin, write_values
from pyg_clusters.frames.store import origin_of
from pyg_clusters.inference.scoring import ScoredBlock

ROWS_AT_ONCE: int = 1 << 20
"""Rows of a row group of a Parquet file."""

ENERGY, SHIELDING = "pred_energy", "pred_nmr_shielding"
"""Names of predictions."""

Columns = Mapping[str, np.ndarray]
NO_COLUMNS: Columns = MappingProxyType({})


class PredictionFormat(ABC):
    """How predictions are written: a beginning, then the bytes of each block, then the file made of them.

    Args:
        dtype: Name of the type of the predictions.
        per_atom: Whether there is a prediction for each atom (a shielding), not for each frame.
        columns: Types of further columns by name, as Arrow calls them.
    """

    with_atoms: bool = False
    """Whether the frames are needed as ASE has them."""

    def __init__(
        self,
        dtype: str = "float32",
        per_atom: bool = False,
        columns: Mapping[str, str] | None = None,
    ):
        self.dtype = dtype
        self.per_atom = per_atom
        self.columns = dict(columns or {})

    def head(self) -> bytes:
        """What the results begin with."""
        return b""

    @abstractmethod
    def block(self, scored: ScoredBlock, more: Columns = NO_COLUMNS) -> bytes:
        """The results of a block.

        Args:
            scored: Its frames and predictions.
            more: Values of the further columns by name, ``[num_frames]`` or ``[num_atoms]``.
        """

    def finish(self, results: Path, out: Path):
        """Makes the file of all results.

        Raises:
            InputError: If it cannot be written.
        """
        with atomic_write(out) as temporary:
            try:
                os.link(results, temporary)  # the results stay until the whole run is known to be done
            except OSError:
                shutil.copyfile(results, temporary)

    def merge(self, parts: Sequence[Path], order: Iterable[tuple[int, int, int]], out: Path):
        """Puts the blocks of several files into one.

        Args:
            parts: The files.
            order: For each block in order: place of its file among the parts, number of its frames, and its length in
                bytes.
            out: The file to write.

        Raises:
            InputError: If a part is shorter than that, or the file cannot be written.
        """
        streams = [part.open("rb") for part in parts]
        try:
            heads = [stream.read(len(self.head())) for stream in streams]
            with atomic_write(out) as temporary, temporary.open("wb") as whole:
                whole.write(heads[0])
                for part, _, length in order:
                    data = streams[part].read(length)
                    if len(data) != length:
                        raise InputError(f"{parts[part]} is shorter than its blocks; make it anew")
                    whole.write(data)
        finally:
            for stream in streams:
                stream.close()


class TableFormat(PredictionFormat):
    """A row for each frame, or for each atom."""

    def rows(self, frames: FrameBlock | None, values: np.ndarray, more: Columns) -> pyarrow.Table:
        """The rows of a block, none without one."""
        text = pyarrow.string()
        of_row = np.zeros(0, dtype=np.int64)
        if frames:
            of_row = frames.frame_of_atom if self.per_atom else np.arange(len(frames))
        files, numbers = origin_of(frames) if frames else (of_row.astype(str), of_row)
        columns = {
            SOURCE_FILE: pyarrow.array(files[of_row], text),
            SOURCE_FRAME: pyarrow.array(numbers[of_row], pyarrow.int64()),
            "size": pyarrow.array(frames.sizes[of_row] if frames else of_row),
        }
        if self.per_atom:
            columns["atom"] = pyarrow.array(np.arange(len(of_row)) - frames.ptr[of_row] if frames else of_row)
            columns[SHIELDING] = pyarrow.array(values)
        else:
            columns[ENERGY] = pyarrow.array(values)
            columns[f"{ENERGY}_per_atom"] = pyarrow.array(values / (frames.sizes if frames else of_row))
        for name, kind in self.columns.items():
            columns[name] = pyarrow.array(more[name], pyarrow.type_for_alias(kind))
        return pyarrow.table(columns)

    def _rows(self, scored: ScoredBlock, more: Columns) -> pyarrow.Table:
        return self.rows(scored.frames, scored.shielding if self.per_atom else scored.energy, more)

    def _no_rows(self) -> pyarrow.Table:
        return self.rows(None, np.zeros(0, dtype=self.dtype), dict.fromkeys(self.columns, np.zeros(0, dtype=object)))


class CsvFormat(TableFormat):
    """Comma-separated values."""

    def head(self) -> bytes:
        return _csv(self._no_rows(), header=True)

    def block(self, scored: ScoredBlock, more: Columns = NO_COLUMNS) -> bytes:
        return _csv(self._rows(scored, more), header=False)


def _csv(table: pyarrow.Table, header: bool) -> bytes:
    stream = BytesIO()
    pyarrow.csv.write_csv(table, stream, pyarrow.csv.WriteOptions(include_header=header))
    return stream.getvalue()


class ParquetFormat(TableFormat):
    """Parquet, made of a stream of record batches in the end."""

    def head(self) -> bytes:
        return self._no_rows().schema.serialize().to_pybytes()

    def block(self, scored: ScoredBlock, more: Columns = NO_COLUMNS) -> bytes:
        batches = self._rows(scored, more).to_batches()
        return b"".join(batch.serialize().to_pybytes() for batch in batches)

    def finish(self, results: Path, out: Path):
        with results.open("rb") as stream:
            self._write(pyarrow.ipc.open_stream(stream), out)

    def merge(self, parts: Sequence[Path], order: Iterable[tuple[int, int, int]], out: Path):
        if self.per_atom:
            raise InputError(f"{out}: rows of atoms are not put together in Parquet; let the parts be .csv or .extxyz")
        rows = [_Rows(part) for part in parts]
        self._write((batch for part, frames, _ in order for batch in rows[part].take(frames)), out)

    def _write(self, batches: Iterable[pyarrow.RecordBatch], out: Path):
        schema = self._no_rows().schema
        waiting: list[pyarrow.RecordBatch] = []
        number = 0
        with atomic_write(out) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for batch in batches:
                waiting.append(batch)
                number += len(batch)
                if number >= ROWS_AT_ONCE:
                    table = pyarrow.Table.from_batches(waiting, schema)
                    writer.write_table(table[:ROWS_AT_ONCE].combine_chunks())
                    waiting, number = table[ROWS_AT_ONCE:].to_batches(), number - ROWS_AT_ONCE
            writer.write_table(pyarrow.Table.from_batches(waiting, schema).combine_chunks())


class _Rows:
    """The rows of a Parquet file, taken in order."""

    def __init__(self, path: Path):
        self.path = path
        self.batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        self.rest: pyarrow.RecordBatch | None = None

    def take(self, number: int) -> Iterator[pyarrow.RecordBatch]:
        while number:
            if self.rest is None or not len(self.rest):
                self.rest = next(self.batches, None)
                if self.rest is None:
                    raise InputError(f"{self.path} has fewer rows than its blocks; make it anew")
            taken = self.rest[:number]
            self.rest = self.rest[number:]
            number -= len(taken)
            yield taken


class ExtxyzFormat(PredictionFormat):
    """The frames with all that they hold, and the predictions."""

    with_atoms = True

    def block(self, scored: ScoredBlock, more: Columns = NO_COLUMNS) -> bytes:
        frames, texts = scored.frames, []
        files, numbers = origin_of(frames)
        for place, atoms in enumerate(frames.atoms or ()):
            set_origin(atoms.info, str(files[place]), int(numbers[place]))
            if self.per_atom:
                own = slice(frames.ptr[place], frames.ptr[place + 1])
                values = {name: more[name][own] for name in self.columns}
                write_values(atoms.arrays, {SHIELDING: scored.shielding[own]} | values, replaced=(SHIELDING,))
            else:
                values = {name: more[name][place].item() for name in self.columns}
                write_values(atoms.info, {ENERGY: float(scored.energy[place])} | values, replaced=ENERGY_PREDICTION)
            texts.append(extxyz_text(atoms, f"{frames.file}, frame {frames.number[place]}"))
        return "".join(texts).encode()


FORMATS: dict[str, type[PredictionFormat]] = {".csv": CsvFormat, ".parquet": ParquetFormat, ".extxyz": ExtxyzFormat}
"""How predictions are written, by the suffix of the file."""
