"""Predictions that several runs made of parts of the frames, put together."""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, file_fingerprint, remove_stale
from pyg_clusters.frames import BadFrame, BlockLog, Shard
from pyg_clusters.frames.block_log import FinishedBlock
from pyg_clusters.inference.prediction_files import FORMATS, PredictionFormat

STYLE = ("dtype", "per_atom", "columns")
"""Arguments of :class:`~pyg_clusters.inference.prediction_files.PredictionFormat` in the record of a part."""


def shard_file(out: Path) -> Path:
    """The file beside the predictions of a part that says which blocks they are of."""
    return out.with_name(out.name + ".shard.jsonl")


def write_shard(out: Path, shard: Shard, style: PredictionFormat, settings: Mapping[str, object], log: BlockLog):
    """Write the record of the part whose predictions are in a file: its blocks, and hashes of itself and of the file.

    Raises:
        InputError: If the record cannot be written.
    """
    remove_stale(shard_file(out))
    common = {name: value for name, value in settings.items() if name != "shard"}
    head: dict[str, object] = {"part": [shard.number, shard.count], "dtype": style.dtype}
    head |= {"per_atom": style.per_atom, "columns": style.columns, "settings": common}
    blocks = [block.to_json() for block in log.finished()]
    head |= {"predictions": file_fingerprint(out, whole=True), "frames": log.num_frames, "blocks": len(blocks)}
    head["record"] = _hash(head, blocks)
    with atomic_write(shard_file(out)) as temporary:
        temporary.write_text("\n".join([json.dumps(head), *blocks]) + "\n", encoding="utf-8")


def _hash(head: Mapping[str, object], blocks: Iterable[str]) -> str:
    kept = {name: value for name, value in head.items() if name != "record"}
    return hashlib.sha256("\n".join([json.dumps(kept, sort_keys=True), *blocks]).encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """One of the parts that are put together.

    Attributes:
        path: File of its predictions.
        head: What they depend on.
        blocks: Its blocks, in order.
    """

    path: Path
    head: Mapping[str, Any]
    blocks: Sequence[FinishedBlock]

    @property
    def shard(self) -> Shard:
        """Number of the part, and count of the parts."""
        return Shard(*self.head["part"])

    @classmethod
    def read(cls, path: Path) -> "Part":
        """The part whose predictions are in a file.

        Raises:
            InputError: If the file or its record is missing, or one of them is not as ``predict --shard`` wrote it.
        """
        record = shard_file(path)
        if not path.is_file() or not record.is_file():
            missing = record if path.is_file() else path
            raise InputError(f"{missing} is missing: parts are what predict --shard wrote, with the .jsonl beside each")
        try:
            first, *lines = record.read_text(encoding="utf-8").splitlines()
            head = json.loads(first)
            blocks = [FinishedBlock.from_json(line) for line in lines]
            sound = head["record"] == _hash(head, lines)
        except (OSError, ValueError, TypeError, KeyError):
            sound = False
        if not sound:
            raise InputError(f"{record} is corrupted; rerun this part with predict --shard and --overwrite")
        part = cls(path, head, blocks)
        if head["predictions"] != file_fingerprint(path, whole=True):
            raise InputError(
                f"{path} is not as predict wrote it (corrupted or edited); rerun it with --shard {part.shard} and "
                "--overwrite"
            )
        return part


@dataclass(frozen=True)
class Merged:
    """What was put together.

    Attributes:
        num_frames: Number of frames.
        bad: Frames that were left out.
    """

    num_frames: int
    bad: list[BadFrame]


def merge_shards(parts: Sequence[Path], out: Path) -> Merged:
    """Puts the predictions of all parts together in the order of the input, as one run would have written them.

    Args:
        parts: The files that ``predict --shard`` wrote, in any order.
        out: A file of the same type.

    Raises:
        InputError: If a part is missing, given twice or of another run, or a file cannot be read or written.
    """
    read = [Part.read(path) for path in parts]
    _check_parts(read)
    make_format = FORMATS[out.suffix]
    other = next((part for part in parts if part.suffix != out.suffix), None)
    if other is not None:
        raise InputError(f"{other} is no {out.suffix}; give --out the same ending as the parts")
    style = make_format(*(read[0].head[name] for name in STYLE))
    ordered = list(heapq.merge(*(_lengths(part, number, len(style.head())) for number, part in enumerate(read))))
    _check_blocks([place for place, *_ in ordered], read)
    style.merge(parts, (entry[1:] for entry in ordered), out)
    blocks = heapq.merge(*(part.blocks for part in read), key=lambda block: block.place)
    return Merged(sum(part.head["frames"] for part in read), [frame for block in blocks for frame in block.bad])


def _check_parts(parts: Sequence[Part]):
    """Check that the parts are all those of one run."""
    first = parts[0]
    count = first.shard.count
    of_number: dict[int, Path] = {}
    for part in parts:
        number, of = part.shard.number, part.shard.count
        if of != count:
            raise InputError(f"{part.path} is part {number} of {of}, but {first.path} is one of {count}")
        if number in of_number:
            raise InputError(f"{part.path} and {of_number[number]} are both part {number} of {count}; give each once")
        of_number[number] = part.path
        before, this = ({**one.head["settings"], **{name: one.head[name] for name in STYLE}} for one in (first, part))
        for name in {**before, **this}:
            if before.get(name) != this.get(name):
                raise InputError(
                    f"{part.path} was made with {name} = {this.get(name)!r}, but {first.path} with "
                    f"{before.get(name)!r}; rerun one of them"
                )
    missing = sorted(set(range(1, count + 1)) - set(of_number))
    if missing:
        raise InputError(f"part {missing[0]} of {count} is missing; run predict --shard {missing[0]}/{count}")


def _check_blocks(places: Sequence[tuple[int, int]], parts: Sequence[Part]):
    """Check that every block of every file is there once, in its part."""
    for part in parts:
        for finished in part.blocks:
            if not part.shard.has(*finished.place):
                raise InputError(f"{part.path} has block {finished.place}, which is not of part {part.shard}; rerun it")
    for (file, block), (next_file, next_block) in pairwise([(-1, 0), *places]):
        following = (file, block + 1) if next_file == file else (next_file, 0)
        if next_file < file or (next_file, next_block) != following:
            number = next(part.shard for part in parts if part.shard.has(*following))
            missing = f"block {following[1]} of input {following[0]}"
            raise InputError(f"{missing} is in no part; rerun predict --shard {number} --overwrite")


def _lengths(part: Part, number: int, start: int) -> Iterator[tuple[tuple[int, int], int, int, int]]:
    """For each block its place, number of its part, number of its frames, and length of its predictions in bytes."""
    for block in part.blocks:
        yield block.place, number, block.frames, block.end - start
        start = block.end
