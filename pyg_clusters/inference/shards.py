"""Predictions that several runs made of parts of the frames, put together."""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.files import replacing
from pyg_clusters.frames import BadFrame, BlockLog, Shard
from pyg_clusters.frames.block_log import FinishedBlock
from pyg_clusters.inference.prediction_files import PredictionFormat, format_of


def shard_file(out: Path) -> Path:
    """The file beside the predictions of a part that says which blocks they are of."""
    return out.with_name(out.name + ".shard.jsonl")


def write_shard(out: Path, shard: Shard, style: PredictionFormat, settings: Mapping[str, object], log: BlockLog):
    """Writes which blocks the predictions of a part are of.

    Raises:
        InputError: If the file cannot be written.
    """
    common = {name: value for name, value in settings.items() if name != "shard"}
    first = {"part": [shard.number, shard.count], "origins": style.origins, "dtype": style.dtype}
    first |= {"per_atom": style.per_atom, "columns": style.columns, "settings": common}
    with replacing(shard_file(out)) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(first) + "\n")
        for block in log.finished():
            stream.write(block.to_json() + "\n")


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
    heads = [_head(part) for part in parts]
    _check_parts(parts, heads)
    make_format = format_of(out)
    other = next((part for part in parts if part.suffix != out.suffix), None)
    if other is not None:
        raise InputError(f"{other} is no {out.suffix}; give --out the same ending as the parts")
    style = make_format(*(heads[0][name] for name in ("origins", "dtype", "per_atom", "columns")))
    bad: list[BadFrame] = []
    num_frames = 0

    def order() -> Iterator[tuple[int, int, int]]:
        nonlocal num_frames
        streams = (_blocks(part, number, len(style.head())) for number, part in enumerate(parts))
        for block, number, length in heapq.merge(*streams, key=lambda entry: entry[0].place):
            num_frames += block.frames
            bad.extend(block.bad)
            yield number, block.frames, length

    style.merge(parts, order(), out)
    return Merged(num_frames, bad)


def _head(part: Path) -> dict:
    path = shard_file(part)
    if not part.is_file() or not path.is_file():
        missing = path if part.is_file() else part
        raise InputError(f"{missing} is missing: parts are what predict --shard wrote, with the .jsonl beside each")
    try:
        with path.open(encoding="utf-8") as stream:
            return json.loads(next(stream))
    except (ValueError, StopIteration) as error:
        raise InputError(f"{path} is damaged; make the part anew") from error


def _check_parts(parts: Sequence[Path], heads: Sequence[dict]):
    count = heads[0]["part"][1]
    of_number: dict[int, Path] = {}
    for part, head in zip(parts, heads, strict=True):
        number, of = head["part"]
        if of != count:
            raise InputError(f"{part} is part {number} of {of}, but {parts[0]} is one of {count}")
        if number in of_number:
            raise InputError(f"{part} and {of_number[number]} are both part {number} of {count}; give each once")
        of_number[number] = part
        first, this = heads[0]["settings"], head["settings"]
        for name in {**first, **this}:
            if first.get(name) != this.get(name):
                raise InputError(
                    f"{part} was made with {name} = {this.get(name)!r}, but {parts[0]} with {first.get(name)!r}"
                )
    missing = sorted(set(range(1, count + 1)) - set(of_number))
    if missing:
        raise InputError(f"part {missing[0]} of {count} is missing; run predict --shard {missing[0]}/{count}")


def _blocks(part: Path, number: int, start: int) -> Iterator[tuple[FinishedBlock, int, int]]:
    with shard_file(part).open(encoding="utf-8") as stream:
        next(stream)
        for line in stream:
            block = FinishedBlock.from_json(line)
            yield block, number, block.end - start
            start = block.end
