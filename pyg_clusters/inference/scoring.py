"""Block-wise prediction for the frames of files."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from pyg_clusters.concurrency import read_ahead
from pyg_clusters.frames import BadFrame, FrameBlock, Frames, Shard
from pyg_clusters.frames.checks import finite_frames, numbers
from pyg_clusters.frames.reader import Piece
from pyg_clusters.frames.resume import input_settings
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.predictor import Prediction, Predictor, check_for_model

AHEAD: int = 4  # number of blocks that are read and checked ahead of the model


@dataclass
class ScoredBlock:
    """Block of frames with predictions."""

    frames: FrameBlock  #: Usable frames.
    prediction: Prediction  #: Predicted energies of the frames, or shieldings of their atoms.
    bad: list[BadFrame]  #: Frames of this part of the file that were left out.
    #: Reasons why frames are outside the range of the training set, ``[num_frames]``, if requested.
    flags: np.ndarray | None = None

    @property
    def num_flagged(self) -> int:
        """Number of frames outside the range of the training set."""
        return 0 if self.flags is None else int((self.flags != "").sum())

    @property
    def energy(self) -> np.ndarray:
        """Predicted energies in eV, ``[num_frames]``."""
        return self.prediction.energy.numpy()

    @property
    def shielding(self) -> np.ndarray:
        """Predicted shieldings in ppm, ``[num_atoms]``."""
        return self.prediction.shielding.numpy()

    @property
    def spread(self) -> np.ndarray | None:
        """Standard deviations of the energies in eV or shieldings in ppm, if the model provides them."""
        return None if self.prediction.spread is None else self.prediction.spread.numpy()

    def select(self, chosen: np.ndarray) -> "ScoredBlock":
        """Block of the frames of a boolean mask ``[num_frames]``."""
        frames, prediction = self.frames.select(chosen), self.prediction
        rows = torch.from_numpy(chosen[self.frames.frame_of_atom] if prediction.per_atom else chosen)
        spread = None if prediction.spread is None else prediction.spread[rows]
        prediction = Prediction(prediction.values[rows], len(frames), len(frames.z), prediction.model, spread)
        return ScoredBlock(frames, prediction, self.bad, None if self.flags is None else self.flags[chosen])

    def with_finite(self, key: str, on_bad: Literal["stop", "skip"]) -> "ScoredBlock":
        """Block of the frames whose value of a name, or values of the atoms, are finite.

        The others are added to the frames that were left out. With ``on_bad="stop"`` the block is returned as it is.
        """
        if on_bad == "stop":
            return self
        per_atom = key in self.frames.atom_properties
        finite, invalid = finite_frames(self.frames, key, per_atom, single=self.prediction.per_atom)
        if not invalid:
            return self
        block = self.select(np.isin(self.frames.number, finite.number))
        return replace(block, bad=sorted([*self.bad, *invalid], key=lambda frame: frame.number))

    def with_energies(self, key: str, on_bad: Literal["stop", "skip"], unit: float) -> "ScoredBlock":
        """Block of the frames with a finite energy of a name, converted from a unit in eV to eV.

        Raises:
            InputError: If it is not a finite number, with ``on_bad="stop"``; the message names the first such frame.
        """
        block = self.with_finite(key, on_bad)
        block.frames.properties[key] = numbers(block.frames, key) * unit
        return block


def score_frames(
    predictor: Predictor,
    frames: Frames,
    *,
    start: tuple[int, int] = (0, 0),
    shard: Shard | None = None,
    piece: Piece | None = None,
    trained: OutOfRangeFlagger | None = None,
) -> Iterator[ScoredBlock]:
    """Predict frames block by block, see :func:`score_blocks`, and :meth:`Frames.blocks` for ``start`` to ``piece``.

    Raises:
        InputError: If a file or, with ``on_bad="stop"``, a frame cannot be used.
    """
    blocks = frames.blocks(ahead=0, start=start, shard=shard, piece=piece, report=piece is None)
    return score_blocks(predictor, blocks, frames.on_bad, trained)


def score_blocks(
    predictor: Predictor,
    blocks: Iterable[FrameBlock],
    on_bad: Literal["stop", "skip"],
    trained: OutOfRangeFlagger | None = None,
) -> Iterator[ScoredBlock]:
    """Predict blocks of frames, after checking them against the training domain of the model.

    A background thread reads, checks and flags the next blocks while the model computes.
    """
    flagged = (
        (block, bad, trained.flags(block.z, block.pos, block.ptr) if trained else None)
        for block, bad in checked(blocks, predictor, on_bad)
    )
    for block, bad, flags in read_ahead(flagged, AHEAD):
        scored = ScoredBlock(block, predictor(block.z, block.pos, block.ptr), bad, flags)
        yield scored if bool(scored.prediction.values.isfinite().all()) else _predictable(scored, on_bad)


def _predictable(block: ScoredBlock, on_bad: Literal["stop", "skip"]) -> ScoredBlock:
    """Leave out the frames of a block for which a prediction is not finite, or raise an error at the first of them."""
    values = block.prediction.values.numpy()
    wrong = np.flatnonzero(~np.isfinite(values))
    of_row = block.frames.frame_of_atom if block.prediction.per_atom else np.arange(len(block.frames))
    chosen, first = np.unique(of_row[wrong], return_index=True)
    bad = [
        BadFrame(block.frames.file, int(block.frames.number[frame]), f"the model predicts {values[row]}")
        for frame, row in zip(chosen, wrong[first], strict=True)
    ]
    if on_bad == "stop":
        raise bad[0].error
    keep = ~np.isin(np.arange(len(block.frames)), chosen)
    return replace(block.select(keep), bad=sorted([*block.bad, *bad], key=lambda frame: frame.number))


def checked(
    blocks: Iterable[FrameBlock], predictor: Predictor, on_bad: Literal["stop", "skip"]
) -> Iterator[tuple[FrameBlock, list[BadFrame]]]:
    """Yield the frames of each block that the model supports, and the frames that are left out."""
    for block in blocks:
        frames, bad = check_for_model(block, predictor.model, on_bad)
        if block.partial:  # an error follows
            continue
        yield frames, bad


def job_settings(predictor: Predictor, frames: Frames) -> dict[str, object]:
    """Settings of the model and the input that determine predictions, as JSON types."""
    topology = frames.options.topology
    return {
        "model": fingerprint(predictor.model),
        "fragments": frames.options.fragments,
        "block_size": frames.options.block_size,
        **input_settings([*frames.paths, *([] if topology is None else [topology])]),
    }


def fingerprint(model: nn.Module) -> str:
    """Hash of the class, the ``repr`` and the weights of a model."""
    digest = hashlib.sha256(f"{type(model).__name__} {model} {list(model.children())}".encode())
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().numpy().tobytes())
    return digest.hexdigest()[:16]
