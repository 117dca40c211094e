"""Predictions for the frames of files."""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import torch

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, BlockLog, FrameBlock, Frames, Shard
from pyg_clusters.frames.piece import Piece
from pyg_clusters.frames.prefetch import read_ahead
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.prediction import Prediction
from pyg_clusters.inference.predictor import Predictor, check_for_model
from pyg_clusters.options.common import Fragments
from pyg_clusters.progress import counting

AHEAD: int = 4
"""So many blocks are read and checked before the model asks for them."""


@dataclass
class ScoredBlock:
    """A block of frames and what a model says of them.

    Attributes:
        frames: The frames that could be used.
        prediction: Their predicted energies, or the shieldings of their atoms.
        bad: The frames of this stretch of the file that were left out.
        flags: Why each frame is unlike those that the model was trained on, ``[num_frames]``, where that was asked for.
    """

    frames: FrameBlock
    prediction: Prediction
    bad: list[BadFrame]
    flags: np.ndarray | None = None

    @property
    def energy(self) -> np.ndarray:
        """Predicted energies in eV, ``[num_frames]``.

        Raises:
            InputError: If the model is one of shieldings.
        """
        return self.prediction.energy.numpy()

    @property
    def shielding(self) -> np.ndarray:
        """Predicted shieldings in ppm, ``[num_atoms]``.

        Raises:
            InputError: If the model is one of energies.
        """
        return self.prediction.shielding.numpy()

    @property
    def spread(self) -> np.ndarray | None:
        """Standard deviations of the energies in eV or of the shieldings in ppm, of a model that gives them."""
        return None if self.prediction.spread is None else self.prediction.spread.numpy()


def score_files(
    predictor: Predictor,
    paths: Iterable[str | PathLike],
    *,
    properties: Sequence[str] = (),
    atom_properties: Sequence[str] = (),
    with_atoms: bool = False,
    on_bad: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
    topology: str | PathLike | None = None,
    log: BlockLog | None = None,
) -> Iterator[ScoredBlock]:
    """Reads frames, checks them against what the model knows, and predicts energies or shieldings, block by block.

    Reading and checking go on in a thread while the model computes.

    Args:
        predictor: Of the model.
        paths: Files of frames, in any format that :class:`~pyg_clusters.frames.Frames` reads.
        properties: Values per frame to read along.
        atom_properties: Values per atom to read along.
        with_atoms: Keep the frames as ASE has them, with all their labels.
        on_bad: Stop at a frame that cannot be used, or leave it out.
        fragments: Whether a periodic frame that stays in several pieces is bad, or kept with them at their nearest
            images.
        topology: For formats that hold positions only: a file that says what the atoms are.
        log: Where the predictions for finished blocks are kept: those that are there are not computed again.

    Raises:
        InputError: If a file or, with ``on_bad="stop"``, a frame cannot be used.
    """
    frames = Frames.open(
        paths,
        properties=properties,
        atom_properties=atom_properties,
        with_atoms=with_atoms,
        on_bad=on_bad,
        topology=topology,
        fragments=fragments,
    )
    return score_frames(predictor, frames, log=log)


def score_frames(
    predictor: Predictor,
    frames: Frames,
    *,
    start: tuple[int, int] = (0, 0),
    shard: Shard | None = None,
    piece: Piece | None = None,
    trained: OutOfRangeFlagger | None = None,
    log: BlockLog | None = None,
    report: bool = True,
) -> Generator[ScoredBlock, None, None]:
    """As :func:`score_files`, from a block on or for one part of the blocks.

    Reading, checking and flagging go on in a thread while the model computes.

    Args:
        predictor: Of the model.
        frames: What to score.
        start: The first block.
        shard: Score the blocks of this part only.
        piece: Score the blocks of this piece only.
        trained: Flag the frames that are unlike these.
        log: Where the energies of finished blocks are kept: those that are there are not computed again.
        report: Warn in the end of how many frames were joined over the faces of their cells.

    Raises:
        InputError: If a file or a frame cannot be used.
    """
    known = _Finished(log, predictor)
    read = frames.blocks(ahead=0, start=start, shard=shard, piece=piece, report=report and piece is None)
    blocks = checked(read, predictor, frames.on_bad)
    flagged = ((block, bad, None if trained is None else _flags(block, trained)) for block, bad in blocks)
    for block, bad, flags in read_ahead(flagged, AHEAD):
        prediction = known.pop(block)
        if prediction is None:
            prediction = predictor(block.z, block.pos, block.ptr)
            if log is not None:
                log.append(block.place, len(block), prediction_bytes(prediction), bad)
        yield ScoredBlock(block, prediction, bad, flags)


def _flags(block: FrameBlock, trained: OutOfRangeFlagger) -> np.ndarray:
    return trained.flags(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (block.z, block.pos, block.ptr)))


def checked(
    blocks: Iterable[FrameBlock], predictor: Predictor, on_bad: Literal["stop", "skip"]
) -> Iterator[tuple[FrameBlock, list[BadFrame]]]:
    """The frames of each block that the model can take, and those that are left out."""
    for block in blocks:
        frames, bad = check_for_model(block, predictor.model, on_bad)
        if block.partial:  # an error follows
            continue
        yield frames, sorted({*bad, *block.unreadable}, key=lambda frame: frame.number)


def prediction_bytes(prediction: Prediction) -> bytes:
    """The values, and after them the spreads if there are some."""
    columns = (prediction.values, prediction.spread)
    return b"".join(column.numpy().tobytes() for column in columns if column is not None)


class _Finished:
    """Predictions for the blocks that a log holds, taken out one after the other."""

    def __init__(self, log: BlockLog | None, predictor: Predictor):
        self.blocks = iter([] if log is None else list(log.finished()))
        self.log = log
        self.position = 0
        self.dtype = np.dtype(predictor.dtype_name)
        self.model = type(predictor.model).__name__
        self.gives_spread = predictor.gives_spread

    def pop(self, block: FrameBlock) -> Prediction | None:
        """Predictions for a block, if they are there."""
        found = next(self.blocks, None)
        if found is None or self.log is None:
            return None
        with self.log.results.open("rb") as stream:
            stream.seek(self.position)
            data = stream.read(found.end - self.position)
        self.position = found.end
        if found.place != block.place or found.frames != len(block):
            raise InputError(f"{block.file}: is not as it was when the run began; pass --overwrite to begin anew")
        values = torch.from_numpy(np.frombuffer(data, dtype=self.dtype).copy())
        values, spread = values.view(2, values.numel() // 2) if self.gives_spread else (values, None)
        return Prediction(values, len(block), len(block.z), self.model, spread)


def with_progress(blocks: Iterable[ScoredBlock], bad: list[BadFrame]) -> Iterator[ScoredBlock]:
    """Pass blocks on, show a progress bar, and collect the bad frames."""
    for block in counting(blocks, lambda block: len(block.frames)):
        bad += block.bad
        yield block


def check_numbers(block: ScoredBlock, key: str, unit: float = 1.0) -> ScoredBlock:
    """The block, whose property ``key`` is a finite number in every frame.

    Args:
        block: The frames.
        key: Name of the property.
        unit: Unit that the numbers are in; they come out multiplied by it.

    Raises:
        InputError: Naming the first frame where it is not.
    """
    frames = block.frames
    values = frames.properties[key]
    if values.ndim == 1 and values.dtype.kind in "iuf" and np.isfinite(values).all():
        if unit != 1.0:
            frames.properties[key] = values * unit
        return block
    place = next((place for place, value in enumerate(values) if not _is_finite_number(value)), 0)
    raise InputError(
        f"{frames.file}, frame {frames.number[place]}: {key!r} must be a number, got {values[place]!s}; fix or remove "
        "the frame"
    )


def check_atom_numbers(block: ScoredBlock, key: str) -> ScoredBlock:
    """The block, whose property ``key`` is a finite number for every atom.

    Raises:
        InputError: Naming the first atom where it is not.
    """
    frames = block.frames
    values = frames.atom_properties[key]
    numbers = values.ndim == 1 and values.dtype.kind in "iuf"
    wrong = np.flatnonzero(~np.isfinite(values)) if numbers else np.arange(len(values))
    if wrong.size:
        atom = int(wrong[0])
        frame = int(frames.frame_of_atom[atom])
        raise InputError(
            f"{frames.file}, frame {frames.number[frame]}: {key!r} of atom {atom - frames.ptr[frame]} must be a "
            f"number, got {values[atom]!s}; fix or remove the frame"
        )
    return block


def _is_finite_number(value: object) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
